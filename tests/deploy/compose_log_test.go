package deploy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	composetypes "github.com/compose-spec/compose-go/v2/types"
)

const sharedLogFile = deployDir + "/docker/compose.shared-log.yaml"

// sharedLogProblems returns what keeps the replicas of a project from sharing a log in its service redis.
func sharedLogProblems(project *composetypes.Project, port string) (problems []string) {
	store := project.Services["redis"]
	environment := store.Environment.ToMapping()
	if environment["RUNNEL_LOG_SECRET"] != "/run/secrets" || !hasPassword(store) {
		problems = append(problems, "redis gets no password")
	}
	want := map[string]string{
		"log": "redis://redis:" + port, "log_user": "runnel", "log_password_file": environment["RUNNEL_LOG_SECRET"] + "/password",
	}
	replicas := 0
	for name, service := range project.Services {
		if programOf(name) != "inference" {
			continue
		}
		replicas++
		flags := map[string]string{}
		for _, arg := range service.Command {
			if err := addFlag(flags, arg); err != nil {
				problems = append(problems, err.Error())
			}
		}
		for flag, value := range want {
			if flags[flag] != value {
				problems = append(problems, fmt.Sprintf("%s: --%s=%s, want %s", name, flag, flags[flag], value))
			}
		}
		if !hasPassword(service) {
			problems = append(problems, name+" gets no password")
		}
	}
	if replicas < 2 {
		problems = append(problems, fmt.Sprintf("%d replicas", replicas))
	}
	return problems
}

func hasPassword(service composetypes.ServiceConfig) bool {
	return slices.ContainsFunc(service.Secrets, func(each composetypes.ServiceSecretConfig) bool {
		return each.Source == "password" && each.Target == "/run/secrets/password"
	})
}

func TestComposeSharesTheLog(t *testing.T) {
	project, err := loadCompose(readFile(t, deployDir+"/docker/compose.yaml"), readFile(t, sharedLogFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, service := range project.Services {
		if name != "redis" {
			checkService(t, service)
		}
	}
	report(t, "compose.shared-log.yaml", sharedLogProblems(project, redisSetting(t, "port")))
	report(t, "compose.shared-log.yaml", composeProblems(project, func(name string) time.Duration { return defaultDrain(t, name) }))
}

// The server is the one of Kubernetes, and reachable from the containers only.
func TestComposeConfinesTheStore(t *testing.T) {
	project, err := loadCompose(readFile(t, deployDir+"/docker/compose.yaml"), readFile(t, sharedLogFile))
	if err != nil {
		t.Fatal(err)
	}
	store := project.Services["redis"]
	pod := stores(rendered(t, withRedis))[0].container()
	if !isConfined(store) || len(store.Ports) > 0 || strings.HasPrefix(store.User, "0") || store.User == "" {
		t.Error("the store is less confined than in Kubernetes, or published")
	}
	if store.Image != pod.Image || fmt.Sprint(store.Entrypoint) != fmt.Sprint(pod.Command) || store.WorkingDir != pod.WorkingDir {
		t.Errorf("%s %v in %s: not the one of Kubernetes", store.Image, store.Entrypoint, store.WorkingDir)
	}
	if int64(store.MemLimit) != pod.Resources.Limits.Memory().Value() {
		t.Errorf("memory limit %d, in Kubernetes %s", store.MemLimit, pod.Resources.Limits.Memory())
	}
	for _, volume := range store.Volumes {
		switch volume.Target {
		case "/etc/runnel-redis":
			readFile(t, volume.Source+"/start.sh")
			if !volume.ReadOnly {
				t.Error("the configuration is writable")
			}
		case store.WorkingDir:
			if volume.Type != "volume" {
				t.Errorf("the log is on a %s", volume.Type)
			}
		default:
			t.Errorf("mounts %s", volume.Target)
		}
	}
	if fmt.Sprint(store.HealthCheck.Test[1:]) != fmt.Sprint(pod.ReadinessProbe.Exec.Command) {
		t.Errorf("the health check is %v", store.HealthCheck.Test)
	}
}

func TestBadComposeFilesOfTheSharedLogAreRefused(t *testing.T) {
	base := readFile(t, deployDir+"/docker/compose.yaml")
	good := string(readFile(t, sharedLogFile))
	forEachMistake(t, good, map[string][2]string{
		"another store":         {"--log=redis://redis:6379", "--log=redis://valkey:6379"},
		"another port":          {"--log=redis://redis:6379", "--log=redis://redis:6380"},
		"another file":          {"--log_password_file=/run/secrets/password", "--log_password_file=/run/secrets/key"},
		"no secret":             {"  secrets: [password]\n  depends_on", "  depends_on"},
		"a store without it":    {"    secrets: [password]\n    volumes", "    volumes"},
		"a replica too few":     {"  inference-2:\n", "  other:\n"},
		"a bridge with one":     {"--inference=inference:50051,inference-2:50051", "--inference=inference:50051"},
		"killed too early":      {"stop_grace_period: 45s", "stop_grace_period: 30s"},
		"listens on other port": {"--listen=0.0.0.0:50051", "--listen=0.0.0.0:50052"},
	}, func(changed []byte) bool {
		project, err := loadCompose(base, changed)
		if err != nil {
			return true
		}
		return len(sharedLogProblems(project, redisSetting(t, "port")))+
			len(composeProblems(project, func(name string) time.Duration { return defaultDrain(t, name) })) > 0
	})
}
