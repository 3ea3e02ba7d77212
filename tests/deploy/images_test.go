package deploy

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

var targets = map[string]string{"inference": "50051 9090", "sse": "8080 9090", "ws": "8080 9090"}

// parseDockerfile returns the stages, and the findings of BuildKit's checks.
func parseDockerfile(content []byte) (stages []instructions.Stage, args []instructions.ArgCommand, problems []string) {
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, _ []parser.Range) {
		problems = append(problems, rule+": "+message)
	}})
	parsed, err := parser.Parse(bytes.NewReader(content))
	if err != nil {
		return nil, nil, []string{err.Error()}
	}
	for _, warning := range parsed.Warnings {
		problems = append(problems, warning.Short)
	}
	stages, args, err = instructions.Parse(parsed.AST, lint)
	if err != nil {
		problems = append(problems, err.Error())
	}
	return stages, args, problems
}

var (
	pinnedBase = regexp.MustCompile(`^debian:bookworm-[0-9]{8}-slim@sha256:[0-9a-f]{64}$`)
	checksum   = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// buildProblems returns the inputs of a build that are not pinned by a hash.
func buildProblems(stages []instructions.Stage, args []instructions.ArgCommand) (problems []string) {
	bases := map[string]bool{"scratch": true}
	for _, arg := range args {
		for _, each := range arg.Args {
			if each.Value == nil || !pinnedBase.MatchString(*each.Value) {
				problems = append(problems, each.Key+" is not a Debian 12 image pinned by its hash")
			}
			bases["${"+each.Key+"}"] = true
		}
	}
	for _, stage := range stages {
		if !bases[stage.BaseName] {
			problems = append(problems, "from "+stage.BaseName)
		}
		bases[stage.Name] = true
		for _, command := range stage.Commands {
			if add, ok := command.(*instructions.AddCommand); ok && !checksum.MatchString(add.Checksum) {
				problems = append(problems, add.String()+" without a checksum")
			}
		}
	}
	return problems
}

// imageProblems returns everything in an image besides one program that runs as nobody.
func imageProblems(stage instructions.Stage) (problems []string) {
	wanted := map[string]string{
		"user": "65532:65532", "stop": "SIGTERM", "ports": targets[stage.Name],
		"entry": "[/usr/bin/runnel-" + stage.Name + "]", "copies": "1", "runs": "0", "from": "scratch",
		"labels": "description licenses revision title version",
	}
	got := map[string]string{"copies": "0", "runs": "0", "from": stage.BaseName}
	for _, command := range stage.Commands {
		switch typed := command.(type) {
		case *instructions.UserCommand:
			got["user"] = typed.User
		case *instructions.StopSignalCommand:
			got["stop"] = typed.Signal
		case *instructions.ExposeCommand:
			got["ports"] = strings.Join(typed.Ports, " ")
		case *instructions.EntrypointCommand:
			// With a shell, SIGTERM would end the shell and not the program.
			if !typed.PrependShell {
				got["entry"] = fmt.Sprint(typed.CmdLine)
			}
		case *instructions.CopyCommand:
			got["copies"] += "+1"
			if typed.From == "build" {
				got["copies"] = "1"
			}
		case *instructions.RunCommand:
			got["runs"] = "some"
		case *instructions.LabelCommand:
			got["labels"] = labelNames(typed)
		}
	}
	for key, want := range wanted {
		if got[key] != want {
			problems = append(problems, fmt.Sprintf("%s is %q, want %q", key, got[key], want))
		}
	}
	return problems
}

func labelNames(command *instructions.LabelCommand) string {
	found := map[string]bool{}
	for _, label := range command.Labels {
		found[strings.TrimPrefix(label.Key, "org.opencontainers.image.")] = label.Value != ""
	}
	var names []string
	for _, name := range []string{"description", "licenses", "revision", "title", "version"} {
		if found[name] {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

func dockerfileProblems(content []byte) []string {
	stages, args, problems := parseDockerfile(content)
	problems = append(problems, buildProblems(stages, args)...)
	images := map[string]bool{}
	for _, stage := range stages {
		if _, isTarget := targets[stage.Name]; isTarget {
			images[stage.Name] = true
			for _, problem := range imageProblems(stage) {
				problems = append(problems, stage.Name+": "+problem)
			}
		}
	}
	if len(images) != len(targets) {
		problems = append(problems, fmt.Sprintf("images %v", images))
	}
	return problems
}

func TestDockerfileMakesThreeSmallImages(t *testing.T) {
	report(t, "Dockerfile", dockerfileProblems(readFile(t, deployDir+"/docker/Dockerfile")))
}

func TestBadDockerfilesAreRefused(t *testing.T) {
	good := string(readFile(t, deployDir+"/docker/Dockerfile"))
	forEachMistake(t, good, map[string][2]string{
		"base by tag":       {"-slim@sha256:", "-slim #"},
		"another base":      {"FROM scratch AS ws", "FROM debian:latest AS ws"},
		"root":              {"USER 65532:65532", "USER 0"},
		"entry by a shell":  {`ENTRYPOINT ["/usr/bin/runnel-sse"]`, "ENTRYPOINT /usr/bin/runnel-sse"},
		"another signal":    {"STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL"},
		"download":          {"COPY proto/", "ADD https://example.com/x /x\nCOPY proto/"},
		"file beside":       {"COPY --from=build /rootfs/ws/ /", "COPY --from=build /rootfs/ws/ /\nCOPY model.gguf /"},
		"unknown":           {"STOPSIGNAL", "STOPSIGNALS"},
		"a port too few":    {"EXPOSE 8080 9090", "EXPOSE 8080"},
		"a target too few":  {"FROM scratch AS sse", "FROM scratch AS see"},
		"unlabelled":        {"image.licenses", "image.licence"},
		"ill-cased keyword": {"FROM scratch AS inference", "FROM scratch as inference"},
	}, func(changed []byte) bool { return len(dockerfileProblems(changed)) > 0 })
}
