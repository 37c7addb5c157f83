package paywall_test

import (
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDockerfile: the image runs as a user of its own, keeps what must outlive it
// in volumes, and says whether it is well.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile("xcaddy.Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	stages := strings.Split(string(text), "\nFROM ")
	final := stages[len(stages)-1]
	for _, want := range []string{
		`(?m)^USER [1-9]\d*:[1-9]\d*$`, `(?m)^VOLUME \["/config", "/data"\]$`, `(?ms)^HEALTHCHECK .*\\\n\tCMD wget `, `(?s)chown .*VOLUME.*USER`,
	} {
		if !regexp.MustCompile(want).MatchString(final) {
			t.Errorf("the last stage has no %s", want)
		}
	}
}

// TestDockerContext: every package that the module is built from goes into the
// build of the image.
func TestDockerContext(t *testing.T) {
	text, err := os.ReadFile(".dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	const module = "github.com/caddy-paywall/caddy-paywall"
	seen := map[string]bool{}
	var visit func(dir string)
	visit = func(dir string) {
		if seen[dir] {
			return
		}
		seen[dir] = true
		if top, _, _ := strings.Cut(dir, "/"); dir != "." && !slices.Contains(lines, "!"+top) {
			t.Errorf(".dockerignore leaves %s out", dir)
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, imported := range parsed.Imports {
				if name := strings.Trim(imported.Path.Value, `"`); name == module || strings.HasPrefix(name, module+"/") {
					visit(path.Join(".", strings.TrimPrefix(name, module)[min(1, len(name)-len(module)):]))
				}
			}
		}
	}
	visit(".")
}
