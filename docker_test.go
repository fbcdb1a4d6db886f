package workbench_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// instruction is one line of a Dockerfile, continuation lines joined, with the name of its stage.
type instruction struct {
	stage, name, args string
}

func dockerfile(t *testing.T) []instruction {
	t.Helper()
	text := strings.ReplaceAll(read(t, "docker/Dockerfile"), "\\\n", " ")
	var all []instruction
	stage := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, args, _ := strings.Cut(line, " ")
		if name == "FROM" {
			_, as, ok := strings.Cut(args, " AS ")
			if !ok {
				t.Fatalf("docker/Dockerfile: %q has no name", line)
			}
			stage = as
		}
		all = append(all, instruction{stage, name, strings.TrimSpace(args)})
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// stages maps the name of each stage of the Dockerfile to what it begins from.
func stages(t *testing.T) map[string]string {
	from := map[string]string{}
	for _, i := range dockerfile(t) {
		if i.name == "FROM" {
			base, as, _ := strings.Cut(i.args, " AS ")
			from[as] = base
		}
	}
	return from
}

func TestDockerfileUsesWhatIsHere(t *testing.T) {
	own := regexp.MustCompile(`^(make build|bin/elastic |tools/[a-z-]+\.sh\b|/opt/install-debian\.sh$)`)
	system := regexp.MustCompile(`^(rm -rf|useradd|install -d|mkdir -p) `)
	from, programs := stages(t), 0
	for _, i := range dockerfile(t) {
		words := slices.DeleteFunc(strings.Fields(i.args), func(w string) bool { return strings.HasPrefix(w, "--") })
		switch i.name {
		case "COPY":
			if other := regexp.MustCompile(`--from=(\S+)`).FindStringSubmatch(i.args); other != nil {
				if from[other[1]] == "" {
					t.Errorf("stage %s copies from %q, which is no stage", i.stage, other[1])
				}
				continue
			}
			for _, source := range words[:len(words)-1] {
				if _, err := os.Stat(source); err != nil {
					t.Errorf("stage %s copies what is not there: %v", i.stage, err)
				}
			}
		case "RUN":
			for command := range strings.SplitSeq(i.args, "&&") {
				command = strings.TrimSpace(command)
				if script := strings.Fields(command)[0]; strings.HasPrefix(script, "tools/") {
					checkProgram(t, script)
				}
				switch {
				case own.MatchString(command):
					programs++
				case !system.MatchString(command):
					t.Errorf("stage %s runs %q, which is neither a program of this repository nor making and removing folders and users", i.stage, command)
				}
			}
		case "CMD", "HEALTHCHECK":
			for _, word := range regexp.MustCompile(`"((?:tools|docker)/[^"]+)"`).FindAllStringSubmatch(i.args, -1) {
				if strings.HasSuffix(word[1], ".sh") {
					checkProgram(t, word[1])
				} else if _, err := os.Stat(word[1]); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if programs < 5 {
		t.Errorf("only %d of our programs found: is the pattern still right?", programs)
	}
}

func checkProgram(t *testing.T, path string) {
	t.Helper()
	if info, err := os.Stat(path); err != nil {
		t.Error(err)
	} else if info.Mode()&0o100 == 0 {
		t.Errorf("%s is not executable", path)
	}
}

// TestImagesAreSafe checks that no image runs as root, that the notebook server tells its health, and that compose
// publishes ports on this machine only.
func TestImagesAreSafe(t *testing.T) {
	from, user, health := stages(t), map[string]string{}, map[string]bool{}
	for _, i := range dockerfile(t) {
		switch i.name {
		case "FROM":
			base := from[i.stage]
			user[i.stage], health[i.stage] = user[base], health[base]
		case "USER":
			user[i.stage] = i.args
		case "HEALTHCHECK":
			health[i.stage] = true
		}
		if strings.Contains(strings.ToLower(i.args), "token") || strings.Contains(strings.ToLower(i.args), "password") {
			t.Errorf("stage %s: a secret has no place in an image: %s %s", i.stage, i.name, i.args)
		}
	}
	for _, image := range []string{"cli", "lab", "lab-cuda"} {
		if u := user[image]; u == "" || u == "root" || strings.HasPrefix(u, "0") {
			t.Errorf("image %s runs as %q", image, u)
		}
		if !health[image] {
			t.Errorf("image %s says nothing of its health", image)
		}
	}
	compose := read(t, "docker/compose.yaml")
	ports := regexp.MustCompile(`(?m)ports: (.*)$`).FindAllStringSubmatch(compose, -1)
	for _, p := range ports {
		if !strings.HasPrefix(p[1], `["127.0.0.1:`) || strings.Contains(p[1], ",") {
			t.Errorf("compose publishes %s, want an address of 127.0.0.1", p[1])
		}
	}
	if len(ports) == 0 {
		t.Error("compose publishes no port")
	}
}

// TestDockerVersions holds the versions that are typed in docker against the files that decide them.
func TestDockerVersions(t *testing.T) {
	want := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(read(t, "go.mod"))[1]
	if got := regexp.MustCompile(`(?m)^ARG GO_BASE=golang:([0-9.]+)-`).FindStringSubmatch(read(t, "docker/Dockerfile")); got == nil || got[1] != want {
		t.Errorf("docker/Dockerfile has Go %q, go.mod has %s", got, want)
	}
	wheel := regexp.MustCompile(`Package: "jax-cuda13-pjrt", Version: "([^"]+)"`).FindStringSubmatch(read(t, "pkg/backend/install.go"))
	if wheel == nil || !strings.Contains(read(t, "tools/requirements-cuda.txt"), "jax-cuda13-plugin[with-cuda]=="+wheel[1]+"\n") {
		t.Errorf("tools/requirements-cuda.txt is not of the plugin's version %q", wheel)
	}
}

// pinned matches a base by tag and digest.
var pinned = regexp.MustCompile(`^[a-z0-9./-]+:[A-Za-z0-9._-]+@sha256:[0-9a-f]{64}$`)

// bases maps the ARG of each base in a Dockerfile to its image.
func bases(text string) map[string]string {
	all := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^ARG ([A-Z]+_BASE)=(.*)$`).FindAllStringSubmatch(text, -1) {
		all[m[1]] = m[2]
	}
	return all
}

// TestDockerBasesArePinned checks that each stage begins from another or from a base with tag and digest.
func TestDockerBasesArePinned(t *testing.T) {
	from, base := stages(t), bases(read(t, "docker/Dockerfile"))
	outside := 0
	for stage, image := range from {
		if from[image] != "" {
			continue
		}
		outside++
		name := strings.TrimSuffix(strings.TrimPrefix(image, "${"), "}")
		if !pinned.MatchString(base[name]) {
			t.Errorf("stage %s begins from %s, which is %q, want image:tag@sha256:…", stage, image, base[name])
		}
	}
	if outside != len(base) || outside < 3 {
		t.Errorf("%d stages begin from images, and there are %d bases, want 3 or more of both", outside, len(base))
	}
}

// TestDockerPin renews the digests of the bases with a registry that is a script, and with one that knows a base less.
func TestDockerPin(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "docker"), 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	before := read(t, "docker/Dockerfile")
	script, file := put("docker/build.sh", read(t, "docker/build.sh")), put("docker/Dockerfile", before)
	digest := "sha256:" + strings.Repeat("0a", 32)
	pin := func(registry string) ([]byte, error) {
		cmd := exec.Command(script, "--pin")
		cmd.Env = append(os.Environ(), "ENGINE="+put("engine", "#!/bin/sh\nshift 5\n"+registry))
		return cmd.CombinedOutput()
	}
	if out, err := pin(`case $1 in *distroless*) echo "not found: $1" >&2; exit 1;; *) echo ` + digest + `;; esac`); err == nil || read(t, file) != before {
		t.Errorf("a base that is not found: %v, %s; want an error and the file as it was", err, out)
	}
	if out, err := pin(`case $1 in *@*) exit 1;; *) echo ` + digest + `;; esac`); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := regexp.MustCompile(`(?m)^(ARG [A-Z]+_BASE=.*@)sha256:.*$`).ReplaceAllString(before, "${1}"+digest)
	if got := read(t, file); got != want {
		t.Errorf("pinned:\n%s\nwant\n%s", got, want)
	}
}

// TestDockerTargets checks that whoever builds an image names a stage that there is.
func TestDockerTargets(t *testing.T) {
	from := stages(t)
	targets := regexp.MustCompile(`target: ([a-z-]+)`).FindAllStringSubmatch(read(t, "docker/compose.yaml"), -1)
	if len(targets) < 3 {
		t.Errorf("compose builds %d targets, want 3", len(targets))
	}
	var container struct {
		Build struct{ Dockerfile, Context, Target string }
	}
	if err := json.Unmarshal([]byte(read(t, ".devcontainer/devcontainer.json")), &container); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		filepath.Join(".devcontainer", container.Build.Dockerfile),
		filepath.Join(".binder", "Dockerfile"),
	} {
		if got, err := filepath.EvalSymlinks(path); err != nil || got != filepath.Join("docker", "Dockerfile") {
			t.Errorf("%s is %q, %v; want docker/Dockerfile", path, got, err)
		}
	}
	for _, target := range append(targets, []string{"", container.Build.Target}) {
		if from[target[1]] == "" {
			t.Errorf("docker/Dockerfile has no stage %q", target[1])
		}
	}
	all := dockerfile(t)
	if last := all[len(all)-1].stage; last != "lab" {
		t.Errorf("the last stage is %q; Binder builds the last, so it must be lab", last)
	}
}
