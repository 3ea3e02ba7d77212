package deploy

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// The URL of a model, its hash and the space that it needs.
type modelFile struct{ url, sha256, room string }

var documentedModel = modelFile{
	"https://models.example.com/model.gguf", strings.Repeat("0", 64), "3Gi",
}

// documentedLines returns the YAML that, according to the head of a component, belongs into an overlay.
func documentedLines(t *testing.T, name string) (component, generator string) {
	t.Helper()
	var lines []string
	head := string(readFile(t, deployDir+"/kubernetes/components/"+name+"/kustomization.yaml"))
	for _, line := range strings.Split(head, "\n") {
		if yaml, ok := strings.CutPrefix(line, "#   "); ok {
			lines = append(lines, yaml+"\n")
		}
	}
	component, generator, found := strings.Cut(strings.Join(lines, ""), "configMapGenerator:\n")
	component, isList := strings.CutPrefix(component, "components:\n")
	if !found || !isList {
		t.Fatalf("the component does not document how to add it:\n%s", strings.Join(lines, ""))
	}
	return component, generator
}

// withModel renders production with the component added as documented, for another model.
func withModel(t *testing.T, m modelFile) ([]object, *workload) {
	t.Helper()
	component, generator := documentedLines(t, "model-fetch")
	for _, change := range [][2]string{
		{documentedModel.url, m.url}, {documentedModel.sha256, m.sha256}, {"ROOM=" + documentedModel.room, "ROOM=" + m.room},
	} {
		if strings.Count(generator, change[0]) != 1 {
			t.Fatalf("%q does not occur exactly once in:\n%s", change[0], generator)
		}
		generator = strings.Replace(generator, change[0], change[1], 1)
	}
	objects, err := renderChanged(productionFile,
		"components:\n", "components:\n"+component, "configMapGenerator:\n", "configMapGenerator:\n"+generator)
	if err != nil {
		t.Fatal(err)
	}
	return objects, inferenceOf(t, objects)
}

func inferenceOf(t *testing.T, objects []object) *workload {
	t.Helper()
	all, err := workloads(objects)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range all {
		if w.component == "inference" {
			return w
		}
	}
	t.Fatal("there is no inference")
	return nil
}

func modelConfig(t *testing.T, objects []object, w *workload) *corev1.ConfigMap {
	t.Helper()
	name := w.pod().InitContainers[0].EnvFrom[0].ConfigMapRef.Name
	config, ok := named[*corev1.ConfigMap](objects, name)
	if !ok {
		t.Fatalf("the download reads ConfigMap %s, which does not exist", name)
	}
	return config
}

func TestModelFetchGetsTheModelOfTheOverlay(t *testing.T) {
	names := map[string]bool{}
	for _, m := range []modelFile{
		documentedModel,
		{"https://models.example.com/other.gguf", strings.Repeat("a", 64), "3Gi"},
		{"https://models.example.com/other.gguf", strings.Repeat("a", 64), "40Gi"},
	} {
		objects, w := withModel(t, m)
		config := modelConfig(t, objects, w)
		if config.Data["URL"] != m.url || config.Data["SHA256"] != m.sha256 {
			t.Errorf("the download gets %v, want %v", config.Data, m)
		}
		// Each content has another name, so that a changed value rolls the pods.
		if !regexp.MustCompile(`^runnel-model-[a-z0-9]{10}$`).MatchString(config.Name) || names[config.Name] {
			t.Errorf("%v is in ConfigMap %s", m, config.Name)
		}
		names[config.Name] = true
		for _, each := range objects {
			if !isCustom(each) {
				report(t, each.id, validate(each))
			}
		}
	}
}

// The kubelet evicts a pod whose emptyDirs on disk, logs and files together are above the limits of its containers.
func TestAPodIsNotEvictedForTheModelThatItFetched(t *testing.T) {
	production, err := render(deployDir + "/kubernetes/overlays/production")
	if err != nil {
		t.Fatal(err)
	}
	besides := inferenceOf(t, production).container().Resources.Limits.StorageEphemeral()
	for _, room := range []string{"3Gi", "40Gi"} {
		_, w := withModel(t, modelFile{documentedModel.url, documentedModel.sha256, room})
		want := resource.MustParse(room)
		limit, request := w.container().Resources.Limits.StorageEphemeral(), w.container().Resources.Requests.StorageEphemeral()
		if limit.Cmp(want) != 0 || request.Cmp(want) != 0 {
			t.Errorf("ROOM %s gives a limit of %s and a request of %s", room, limit, request)
		}
		volume, err := mountOf(w, "/models/model.gguf")
		if err != nil || volume.EmptyDir == nil || volume.EmptyDir.Medium != "" {
			t.Fatalf("the model is on %v: %v", volume, err)
		}
		if size := volume.EmptyDir.SizeLimit; size != nil {
			size.Add(*besides)
			if size.Cmp(*limit) > 0 {
				t.Errorf("a full volume of %s and %s of logs are above the limit of %s", volume.EmptyDir.SizeLimit, besides, limit)
			}
		}
	}
}

// download runs the command of the init container with a folder of the test as /models, and returns the expected path
// of the model.
func download(t *testing.T, m modelFile) (string, error) {
	t.Helper()
	_, w := withModel(t, m)
	folder := t.TempDir()
	fetch := w.pod().InitContainers[0]
	script := strings.ReplaceAll(fetch.Command[len(fetch.Command)-1], "/models/", folder+"/")
	command := exec.Command(fetch.Command[0], append(fetch.Command[1:len(fetch.Command)-1:len(fetch.Command)-1], script)...)
	command.Env = append(os.Environ(), "URL="+m.url, "SHA256="+m.sha256)
	output, err := command.CombinedOutput()
	t.Logf("%s", output)
	return filepath.Join(folder, "model.gguf"), err
}

func TestTheDownloadComesBackAfterARefusedConnection(t *testing.T) {
	content := []byte("a model")
	hash := sha256.Sum256(content)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	// The port stays closed until curl's first attempt has failed; curl waits a second before the second one.
	late := make(chan net.Listener, 1)
	time.AfterFunc(500*time.Millisecond, func() {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Error(err)
		}
		late <- listener
	})
	go func() {
		http.Serve(<-late, http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) { response.Write(content) }))
	}()
	file, err := download(t, modelFile{"http://" + address + "/model.gguf", hex.EncodeToString(hash[:]), "1Gi"})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(readFile(t, file)); got != string(content) {
		t.Errorf("downloaded %q", got)
	}
}

func TestADownloadWithAnotherHashIsNoModel(t *testing.T) {
	server := &http.Server{Handler: http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
		response.Write([]byte("something else"))
	})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go server.Serve(listener)
	file, err := download(t, modelFile{"http://" + listener.Addr().String() + "/model.gguf", strings.Repeat("0", 64), "1Gi"})
	if err == nil {
		t.Error("the download of other bytes succeeded")
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a file with other bytes has the name of the model")
	}
}
