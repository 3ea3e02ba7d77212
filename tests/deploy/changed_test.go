package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const productionFile = "overlays/production/kustomization.yaml"

// renderChanged renders the overlay of a file of deploy/kubernetes after replacing `old` by `new` in the file, once for
// each pair.
func renderChanged(file string, pairs ...string) ([]object, error) {
	files := filesys.MakeFsInMemory()
	root := deployDir + "/kubernetes"
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return files.WriteFile("/"+name, content)
	})
	if err != nil {
		return nil, err
	}
	content, err := files.ReadFile("/" + file)
	if err != nil {
		return nil, err
	}
	text := string(content)
	for i := 0; i < len(pairs); i += 2 {
		if strings.Count(text, pairs[i]) != 1 {
			return nil, fmt.Errorf("%s: %q does not occur exactly once", file, pairs[i])
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	if err := files.WriteFile("/"+file, []byte(text)); err != nil {
		return nil, err
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, "/"+filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	var objects []object
	for _, resource := range resources.Resources() {
		yaml, err := resource.AsYAML()
		if err != nil {
			return nil, err
		}
		decoded, err := decode(yaml)
		if err != nil {
			return nil, fmt.Errorf("%w in:\n%s", err, yaml)
		}
		objects = append(objects, decoded)
	}
	return objects, nil
}

// forEachMistake replaces the first of each pair of texts in `good` by the second; `detected` must then return true.
func forEachMistake(t *testing.T, good string, mistakes map[string][2]string, detected func(changed []byte) bool) {
	t.Helper()
	for name, mistake := range mistakes {
		changed := strings.Replace(good, mistake[0], mistake[1], 1)
		if changed == good {
			t.Fatalf("%s: the mistake changed nothing", name)
		}
		if !detected([]byte(changed)) {
			t.Errorf("%s was not detected", name)
		}
	}
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
