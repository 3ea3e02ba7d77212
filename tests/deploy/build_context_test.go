package deploy

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

const root = "../.."

// A .dockerignore in this project's form: it ignores everything, except these paths, without files of these names.
type buildContext struct {
	in       []string
	outNames map[string]bool
}

func parseIgnore(text string) (buildContext, error) {
	context := buildContext{outNames: map[string]bool{}}
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		in, isIn := strings.CutPrefix(line, "!")
		name, isName := strings.CutPrefix(line, "**/")
		switch {
		case i == 0 && line == "*":
		case isIn && i > 0 && len(context.outNames) == 0 && !strings.ContainsAny(in, "*?[!"):
			context.in = append(context.in, in)
		case isName && !strings.ContainsAny(name, "*?[!/"):
			context.outNames[name] = true
		default:
			return context, fmt.Errorf("line %d: this test does not support %q", i+1, line)
		}
	}
	return context, nil
}

func (c buildContext) has(file string) bool {
	for _, part := range strings.Split(file, "/") {
		if c.outNames[part] {
			return false
		}
	}
	for _, in := range c.in {
		if file == in || strings.HasPrefix(file, in+"/") {
			return true
		}
	}
	return false
}

// copyInto executes a COPY of the build stage; a source that is not in the context is an error.
func (c buildContext) copyInto(folder string, command *instructions.CopyCommand) error {
	for _, source := range command.SourcePaths {
		files := 0
		err := filepath.WalkDir(filepath.Join(root, source), func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			file, err := filepath.Rel(root, name)
			if err != nil || !c.has(filepath.ToSlash(file)) {
				return err
			}
			files++
			return copyFile(name, filepath.Join(folder, destination(command, source, filepath.ToSlash(file))))
		})
		if err == nil && files == 0 {
			err = fmt.Errorf("COPY %s: not in the context", source)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// destination returns where a COPY puts a file: the content of a folder goes into the named folder; a file keeps its
// name if the destination ends with a slash.
func destination(command *instructions.CopyCommand, source, file string) string {
	inside := strings.TrimPrefix(strings.TrimPrefix(file, strings.TrimSuffix(source, "/")), "/")
	if inside == "" && strings.HasSuffix(command.DestPath, "/") {
		inside = path.Base(file)
	}
	return path.Join(command.DestPath, inside)
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, content, info.Mode())
}

// sourcesOfBuild returns a folder with the files of the repository that the build stage of a Dockerfile has.
func sourcesOfBuild(t *testing.T, dockerfile []byte) (string, error) {
	context, err := parseIgnore(string(readFile(t, deployDir+"/docker/Dockerfile.dockerignore")))
	if err != nil {
		return "", err
	}
	stages, _, problems := parseDockerfile(dockerfile)
	if len(problems) > 0 {
		return "", fmt.Errorf("%v", problems)
	}
	folder := t.TempDir()
	for _, command := range stages[0].Commands {
		if copied, ok := command.(*instructions.CopyCommand); ok && copied.From == "" {
			if err := context.copyInto(folder, copied); err != nil {
				return "", err
			}
		}
	}
	return folder, nil
}

// planBuild returns an error unless the three programs can be built from a folder: every file that the build names must
// exist or have a rule that makes it.
func planBuild(folder string) error {
	build := filepath.Join(folder, "build")
	for _, args := range [][]string{
		{"cmake", "-S", folder, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DRUNNEL_TESTS=OFF"},
		{"ninja", "-C", build, "-n", "runnel-inference", "runnel-sse", "runnel-ws"},
	} {
		if output, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", args[0], err, output)
		}
	}
	return nil
}

func TestTheImagesAreBuiltOfWhatTheirBuildCopies(t *testing.T) {
	folder, err := sourcesOfBuild(t, readFile(t, deployDir+"/docker/Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	if err := planBuild(folder); err != nil {
		t.Error(err)
	}
	if output, err := exec.Command(filepath.Join(folder, "deploy/local/install.sh"), "--help").CombinedOutput(); err != nil {
		t.Errorf("install.sh: %v\n%s", err, output)
	}
	made := filepath.Join(t.TempDir(), "rootfs")
	script := filepath.Join(folder, "deploy/docker/rootfs.sh")
	if output, err := exec.Command(script, program(t, "runnel-ws"), made).CombinedOutput(); err != nil {
		t.Errorf("rootfs.sh: %v\n%s", err, output)
	}
	if _, err := os.Stat(filepath.Join(made, "usr/bin/runnel-ws")); err != nil {
		t.Error(err)
	}
}

func TestABuildThatCopiesTooLittleIsSeen(t *testing.T) {
	good := string(readFile(t, deployDir+"/docker/Dockerfile"))
	forEachMistake(t, good, map[string][2]string{
		"a folder too few":   {"COPY bridges/ bridges/\n", ""},
		"what is not there":  {"COPY proto/ proto/", "COPY protos/ protos/"},
		"what is kept out":   {"COPY proto/ proto/", "COPY tests/ tests/"},
		"to another place":   {"COPY services/ services/", "COPY services/ service/"},
		"no file of presets": {"CMakePresets.json LICENSE", "CMakePresets.jsn LICENSE"},
	}, func(changed []byte) bool {
		folder, err := sourcesOfBuild(t, changed)
		return err != nil || planBuild(folder) != nil
	})
}
