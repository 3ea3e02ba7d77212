package deploy

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	composetypes "github.com/compose-spec/compose-go/v2/types"
)

// loadCompose merges files like `docker compose -f A -f B`.
func loadCompose(contents ...[]byte) (*composetypes.Project, error) {
	var files []composetypes.ConfigFile
	for i, content := range contents {
		files = append(files, composetypes.ConfigFile{Filename: fmt.Sprintf("compose%d.yaml", i), Content: content})
	}
	return loader.LoadWithContext(context.Background(), composetypes.ConfigDetails{
		WorkingDir:  deployDir + "/docker",
		ConfigFiles: files,
		Environment: composetypes.Mapping{},
	})
}

func TestComposeStartsTheThree(t *testing.T) {
	content := readFile(t, deployDir+"/docker/compose.yaml")
	if _, err := loadCompose(bytes.Replace(content, []byte("read_only:"), []byte("readonly:"), 1)); err == nil {
		t.Error("an unknown key was not detected")
	}
	project, err := loadCompose(content)
	if err != nil {
		t.Fatal(err)
	}
	if len(project.Services) != len(targets) {
		t.Fatalf("%d services", len(project.Services))
	}
	for _, service := range project.Services {
		checkService(t, service)
	}
	report(t, "compose.yaml", composeProblems(project, func(name string) time.Duration { return defaultDrain(t, name) }))
}

// checkService checks what the three have in common, in any number of replicas.
func checkService(t *testing.T, service composetypes.ServiceConfig) {
	t.Helper()
	program := programOf(service.Name)
	if service.Build == nil || service.Build.Target != program || !isConfined(service) || service.User != "65532:65532" {
		t.Errorf("%s is less confined than the pods", service.Name)
	}
	known := helpFlags(t, "runnel-"+program)
	for _, arg := range service.Command {
		flag, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if !known[flag] {
			t.Errorf("%s has no %s", service.Name, arg)
		}
	}
	for _, port := range service.Ports {
		if port.HostIP != "127.0.0.1" || !strings.Contains(targets[program], fmt.Sprint(port.Target)) {
			t.Errorf("%s: port %v", service.Name, port)
		}
	}
}

// programOf returns sse, ws or inference, also for a replica like inference-2.
func programOf(service string) string {
	name, _, _ := strings.Cut(service, "-")
	return name
}

func isConfined(service composetypes.ServiceConfig) bool {
	return service.ReadOnly && fmt.Sprint(service.CapDrop) == "[ALL]" && service.MemLimit > 0 && service.StopGracePeriod != nil &&
		fmt.Sprint(service.SecurityOpt) == "[no-new-privileges:true]"
}

func defaultDrain(t *testing.T, name string) time.Duration {
	t.Helper()
	output, _ := exec.Command(program(t, name), "--help").Output()
	match := regexp.MustCompile(`(?s)--drain_timeout \(.*?default: ([0-9a-z.]+);`).FindSubmatch(output)
	if match == nil {
		t.Fatalf("%s --help has no default of --drain_timeout", name)
	}
	drain, err := time.ParseDuration(string(match[1]))
	if err != nil {
		t.Fatal(err)
	}
	return drain
}

// composeProblems returns addresses in the flags of the three that do not match, and programs that are killed during
// their drain.
func composeProblems(project *composetypes.Project, drain func(name string) time.Duration) (problems []string) {
	flags, published := map[string]map[string]string{}, map[string]string{}
	var replicas []string
	for _, name := range slices.Sorted(maps.Keys(project.Services)) {
		service, program := project.Services[name], programOf(name)
		if targets[program] == "" {
			continue // not one of the three
		}
		flags[name] = map[string]string{}
		for _, arg := range service.Command {
			if err := addFlag(flags[name], arg); err != nil {
				problems = append(problems, err.Error())
			}
		}
		listens := strings.TrimPrefix(flags[name]["listen"], "0.0.0.0:") + " " +
			strings.TrimPrefix(flags[name]["admin_listen"], "0.0.0.0:")
		if listens != targets[program] {
			problems = append(problems, fmt.Sprintf("%s listens on %s, its image names %s", name, listens, targets[program]))
		}
		if program == "inference" {
			replicas = append(replicas, name+":"+strings.TrimPrefix(flags[name]["listen"], "0.0.0.0:"))
		}
		for _, port := range service.Ports {
			if strings.HasPrefix(listens, fmt.Sprint(port.Target)+" ") {
				published[name] = port.HostIP + ":" + port.Published
			}
		}
		if time.Duration(*service.StopGracePeriod) < drain("runnel-"+program)+timeToEnd {
			problems = append(problems, name+" is killed while it drains")
		}
	}
	inference := strings.Join(replicas, ",")
	for what, pair := range map[string][2]string{
		"the SSE bridge asks":       {flags["sse"]["inference"], inference},
		"the WebSocket bridge asks": {flags["ws"]["inference"], inference},
		"the page is sent to":       {flags["sse"]["websocket_url"], "ws://" + published["ws"] + "/v1/ws"},
		"the WebSocket bridge lets in": {
			strings.Split(flags["ws"]["allowed_origins"], ",")[0], "http://" + published["sse"],
		},
	} {
		if pair[0] != pair[1] {
			problems = append(problems, fmt.Sprintf("%s %s, want %s", what, pair[0], pair[1]))
		}
	}
	return problems
}

func TestBadComposeFilesAreRefused(t *testing.T) {
	good := string(readFile(t, deployDir+"/docker/compose.yaml"))
	forEachMistake(t, good, map[string][2]string{
		"another port":          {"--listen=0.0.0.0:50051", "--listen=0.0.0.0:50052"},
		"an unknown name":       {"--inference=inference:50051", "--inference=inferences:50051"},
		"published elsewhere":   {"127.0.0.1:8081:8080", "127.0.0.1:8082:8080"},
		"a page from elsewhere": {"127.0.0.1:8080:8080", "127.0.0.1:8088:8080"},
		"killed too early":      {"stop_grace_period: 45s", "stop_grace_period: 30s"},
	}, func(changed []byte) bool {
		project, err := loadCompose(changed)
		if err != nil {
			t.Fatal(err)
		}
		return len(composeProblems(project, func(name string) time.Duration { return defaultDrain(t, name) })) > 0
	})
}
