package deploy

import (
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// A server that components/redis starts, with its configuration, users and passwords.
type redisServer struct {
	port string
	cli  string
}

// startRedis runs start.sh of the component with Debian's server, on a free port and with its file in a new folder. The
// passwords are the contents of the files `password` and `next-password`.
func startRedis(t *testing.T, passwords ...string) redisServer {
	t.Helper()
	server, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed: deploy/local/install.sh --with-tests")
	}
	cli, err := exec.LookPath("redis-cli")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for i, password := range passwords {
		writeFile(t, filepath.Join(folder, []string{"password", "next-password"}[i]), []byte(password))
	}
	if err := os.Symlink(server, filepath.Join(folder, "valkey-server")); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	listener.Close()
	script, err := filepath.Abs(redisFolder + "start.sh")
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command("/bin/sh", script, "--port", port, "--bind", "127.0.0.1")
	command.Dir = folder
	command.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"), "TMPDIR="+folder, "RUNNEL_LOG_SECRET="+folder)
	var output strings.Builder
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	started := redisServer{port: port, cli: cli}
	// A bounded poll, because the server does not notify that it is ready.
	deadline := time.Now().Add(patience)
	for again := time.NewTicker(20 * time.Millisecond); ; <-again.C {
		reply, err := started.probe(t)
		if err == nil {
			return started
		}
		if time.Now().After(deadline) {
			_ = command.Process.Kill()
			_ = command.Wait()
			t.Fatalf("the server did not start: %s\n%s", reply, output.String())
		}
	}
}

// probe runs the command of the pod's probes.
func (s redisServer) probe(t *testing.T) (string, error) {
	t.Helper()
	probe := stores(rendered(t, withRedis))[0].container().ReadinessProbe.Exec.Command
	output, err := exec.Command(s.cli, append([]string{"-p", s.port}, probe[1:]...)...).CombinedOutput()
	return strings.TrimSpace(string(output)), err
}

// run returns the reply to a command of a user, and an error if the server refuses it.
func (s redisServer) run(user, password string, command ...string) (string, error) {
	args := []string{"-e", "--no-auth-warning", "-p", s.port}
	if user != "" {
		args = append(args, "--user", user, "--pass", password)
	}
	output, err := exec.Command(s.cli, append(args, command...)...).CombinedOutput()
	return strings.TrimSpace(string(output)), err
}

func TestTheStoreStartsAndAnswersItsProbes(t *testing.T) {
	if reply, err := startRedis(t, "secret\n").probe(t); err != nil || reply != "PONG" {
		t.Errorf("%s: %v", reply, err)
	}
}

// Each is a command that the journal sends, in a form that the server accepts.
var commandsOfTheService = [][]string{
	{"XADD", "rnl:{gen_a}:e", "1-1", "e", "x"}, {"XADD", "rnl:{gen_a}:e", "NOMKSTREAM", "1-2", "e", "y"},
	{"XRANGE", "rnl:{gen_a}:e", "-", "+"}, {"XREVRANGE", "rnl:{gen_a}:e", "+", "-", "COUNT", "1"},
	{"SET", "rnl:lease:abcde", "run", "PX", "700"}, {"SET", "rnl:i:hash", "gen_a", "NX", "GET"},
	{"GET", "rnl:lease:abcde"}, {"EXISTS", "rnl:lease:abcde"}, {"PEXPIRE", "rnl:{gen_a}:e", "60000"},
	{"SADD", "rnl:own:abcde", "gen_a"}, {"SMEMBERS", "rnl:own:abcde"}, {"SREM", "rnl:own:abcde", "gen_a"},
	{"HSET", "rnl:replicas", "abcde", "run"}, {"HGET", "rnl:replicas", "abcde"}, {"HGETALL", "rnl:replicas"}, {"HDEL", "rnl:replicas", "abcde"},
	{"DEL", "rnl:{gen_a}:e"}, {"WAIT", "0", "1"}, {"PING"}, {"INFO"},
}

var commandsOfOthers = [][]string{
	{"KEYS", "*"}, {"SCAN", "0"}, {"CONFIG", "GET", "*"}, {"FLUSHALL"}, {"EVAL", "return 1", "0"}, {"ACL", "LIST"},
	{"CLIENT", "LIST"}, {"SHUTDOWN"}, {"GET", "other:key"}, {"SET", "other:key", "x"},
	{"XADD", "other:{gen_a}:e", "1-1", "e", "x"}, {"PUBLISH", "rnl:channel", "x"}, {"SWAPDB", "0", "1"},
}

func TestTheServiceMayDoWhatItNeedsAndNothingElse(t *testing.T) {
	server := startRedis(t, "secret\n")
	for _, command := range commandsOfTheService {
		if reply, err := server.run("runnel", "secret", command...); err != nil {
			t.Errorf("%v: %s", command, reply)
		}
	}
	for _, command := range commandsOfOthers {
		if reply, err := server.run("runnel", "secret", command...); err == nil || !strings.Contains(reply, "NOPERM") {
			t.Errorf("%v is allowed: %s", command, reply)
		}
	}
	for _, command := range append(commandsOfOthers, []string{"GET", "rnl:i:hash"}, []string{"INFO"}) {
		if reply, err := server.run("probe", "none", command...); err == nil || !strings.Contains(reply, "NOPERM") {
			t.Errorf("the probe's user: %v is allowed: %s", command, reply)
		}
	}
}

// The first word of a command in the sources of the journal.
var sentCommand = regexp.MustCompile(`\{"([A-Z]{3,12})"[,}]`)

// Commands of the sources that the ACL need not allow: anybody may send AUTH, SENTINEL goes to another server, and only
// a database other than 0 needs SELECT.
var needNoPermission = []string{"auth", "select", "sentinel"}

func TestTheServiceMayDoExactlyWhatItDoes(t *testing.T) {
	sent := map[string]bool{}
	err := filepath.WalkDir(root+"/services/inference/journal", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".cc" {
			return err
		}
		for _, match := range sentCommand.FindAllSubmatch(readFile(t, name), -1) {
			sent[strings.ToLower(string(match[1]))] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, each := range needNoPermission {
		delete(sent, each)
	}
	_, allowed, _ := strings.Cut(string(readFile(t, redisFolder+"users.acl")), "user runnel ")
	allowed, _, _ = strings.Cut(allowed, "\n")
	may := map[string]bool{}
	for _, word := range strings.Fields(allowed) {
		if command, ok := strings.CutPrefix(word, "+"); ok {
			may[command] = true
		}
	}
	if !maps.Equal(sent, may) {
		t.Errorf("the journal sends %v, users.acl allows %v", slices.Sorted(maps.Keys(sent)), slices.Sorted(maps.Keys(may)))
	}
	for _, command := range commandsOfTheService {
		delete(may, strings.ToLower(command[0]))
	}
	if len(may) > 0 {
		t.Errorf("not tried: %v", slices.Sorted(maps.Keys(may)))
	}
}

func TestTheStoreRefusesEverybodyElse(t *testing.T) {
	server := startRedis(t, "secret\n")
	for _, row := range [][2]string{{"", ""}, {"default", ""}, {"default", "secret"}, {"runnel", "other"}, {"runnel", ""}, {"root", "secret"}} {
		if reply, err := server.run(row[0], row[1], "PING"); err == nil || strings.Contains(reply, "PONG") {
			t.Errorf("%v may connect: %s", row, reply)
		}
	}
}

// As deploy/README.md rotates a password: both are valid for a while.
func TestBothPasswordsAreValidWhileOneIsRotated(t *testing.T) {
	server := startRedis(t, "old one\n", "ne'w/&\\$")
	for _, password := range []string{"old one", "ne'w/&\\$"} {
		if reply, err := server.run("runnel", password, "PING"); err != nil || reply != "PONG" {
			t.Errorf("%q: %s: %v", password, reply, err)
		}
	}
}

func TestAStoreWithoutAPasswordDoesNotStart(t *testing.T) {
	folder := t.TempDir()
	for range 2 {
		command := exec.Command("/bin/sh", redisFolder+"start.sh")
		command.Env = append(os.Environ(), "TMPDIR="+folder, "RUNNEL_LOG_SECRET="+folder)
		output, err := command.CombinedOutput()
		if err == nil || !strings.Contains(string(output), "no password") {
			t.Errorf("%v: %s", err, output)
		}
		// The second time with an empty one.
		writeFile(t, filepath.Join(folder, "password"), []byte("\n"))
	}
}

// What a restart must not lose, and what must not be evicted.
func TestTheStoreKeepsWhatItAcknowledged(t *testing.T) {
	server := startRedis(t, "secret\n")
	for _, row := range []struct{ section, line string }{
		{"memory", "maxmemory_policy:noeviction"}, {"memory", "maxmemory:536870912"}, {"persistence", "aof_enabled:1"},
	} {
		reply, err := server.run("runnel", "secret", "INFO", row.section)
		if err != nil || !strings.Contains(reply, row.line) {
			t.Errorf("INFO %s has no %s: %v", row.section, row.line, err)
		}
	}
	if fsync := redisSetting(t, "appendfsync"); fsync != "everysec" {
		t.Errorf("appendfsync %s", fsync)
	}
}
