package deploy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Bounds a failure only.
const patience = 20 * time.Second

func program(t *testing.T, name string) string {
	t.Helper()
	folder := os.Getenv("RUNNEL_BIN")
	if folder == "" {
		t.Fatal("RUNNEL_BIN must name the folder of the programs")
	}
	return filepath.Join(folder, name)
}

var helpLine = regexp.MustCompile(`(?m)^ +--([a-z0-9_]+) \(`)

// helpFlags returns the flags in a program's --help. Abseil exits with 1 after it.
func helpFlags(t *testing.T, name string) map[string]bool {
	t.Helper()
	output, err := exec.Command(program(t, name), "--help").Output()
	if _, isExit := err.(*exec.ExitError); err != nil && !isExit {
		t.Fatal(err)
	}
	flags := map[string]bool{}
	for _, match := range helpLine.FindAllSubmatch(output, -1) {
		flags[string(match[1])] = true
	}
	if len(flags) < 10 {
		t.Fatalf("%s --help lists %d flags", name, len(flags))
	}
	return flags
}

// A running program; killed at the end of the test.
type process struct {
	port, admin string
}

var portsLine = regexp.MustCompile(`(?:gRPC on|listening on) port (\d+)|admin port (\d+)`)

// start runs a program and waits until it has printed where it listens: free loopback ports, unless the arguments
// differ.
func start(t *testing.T, name string, args ...string) process {
	t.Helper()
	args = append([]string{"--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0"}, args...)
	command := exec.Command(program(t, name), args...)
	stderr, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { _ = command.Process.Kill() })
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	var started process
	var said strings.Builder
	lines := bufio.NewScanner(stderr)
	for started.port == "" || started.admin == "" {
		if !lines.Scan() {
			t.Fatalf("%s %v did not start:\n%s", name, args, said.String())
		}
		said.WriteString(lines.Text() + "\n")
		for _, match := range portsLine.FindAllStringSubmatch(lines.Text(), -1) {
			started.port += match[1]
			started.admin += match[2]
		}
	}
	late.Stop()
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	return started
}

// get retries until the response has status 200 and returns its body.
func get(t *testing.T, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// A bounded poll, because a process does not notify that it is ready.
	for again := time.NewTicker(20 * time.Millisecond); ; <-again.C {
		body, err := getOnce(ctx, url)
		if err == nil {
			return body
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func getOnce(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %s", url, response.Status)
	}
	return string(body), err
}

func TestEveryFlagOfTheManifestsExists(t *testing.T) {
	forEachWiring(t, func(t *testing.T, _ []object, all []*workload) {
		for _, w := range all {
			known := helpFlags(t, w.program())
			for flag := range w.flags {
				if !known[flag] {
					t.Errorf("%s has no --%s", w.program(), flag)
				}
			}
		}
	})
}

// The real programs with the manifests' flags, except those that only work in a cluster.
func TestTheProgramsStartWithTheirFlags(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys")
	writeFile(t, keys, []byte("a-key-of-the-tests\n"))
	forEachWiring(t, func(t *testing.T, _ []object, all []*workload) {
		for _, w := range all {
			var args []string
			for flag, value := range w.flags {
				switch {
				case flag == "listen" || flag == "admin_listen":
					// Not on loopback, where bridges require keys or --allow_anonymous.
					value = strings.TrimSuffix(value, w.flagPort(flag)) + "0"
				case flag == "engine":
					value = "scripted"
				case (flag == "api_keys_file" || flag == "log_password_file") && value != "":
					value = keys
				case flag == "log_ca_file" && value != "":
					value = "/etc/ssl/certs/ca-certificates.crt"
				case flag == "log_address":
					value = strings.Replace(value, "$(POD_IP)", "127.0.0.1", 1)
				}
				args = append(args, "--"+flag+"="+value)
			}
			get(t, "http://127.0.0.1:"+start(t, w.program(), args...).admin+"/livez")
		}
	})
}
