package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMakeDemo: `make demo` runs what it has built, whatever the packages on the
// way are called, and shows why a build failed.
func TestMakeDemo(t *testing.T) {
	makefile, err := filepath.Abs("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		build string // what `go build` does
		ok    bool
		says  []string
		not   []string
	}{
		"fresh": {
			build: `i=0; while [ $i -lt 600 ]; do echo some/package; i=$((i+1)); done; echo internal/goarch; echo errors; echo github.com/pkg/errors; echo "go: downloading golang.org/x/xerrors v0.1.0"; ` +
				`mkdir -p bin; printf '#!/bin/sh\necho the demo ran "$@"\n' > bin/demo; chmod +x bin/demo`,
			ok: true, says: []string{"  250 modules and packages\n  500 modules and packages\n  604 modules and packages\n", "the demo ran -once"}, not: []string{"xerrors"},
		},
		"does not compile": {
			build: `echo errors; echo '# github.com/caddy-paywall/caddy-paywall'; echo './app.go:7:2: undefined: x'; exit 1`,
			says:  []string{"# github.com/caddy-paywall/caddy-paywall\n", "undefined: x\n"}, not: []string{"the demo ran"},
		},
		"no modules": {
			build: `echo 'go: github.com/caddyserver/caddy/v2@v2.11.9: Get "https://proxy.golang.org/": dial tcp: no route to host'; exit 1`,
			says:  []string{"no route to host\n"}, not: []string{"the demo ran"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "go"), []byte("#!/bin/sh\n{ "+tt.build+"; } >&2\n"), 0o700); err != nil { //nolint:gosec // it is run
				t.Fatal(err)
			}
			cmd := exec.Command("make", "-f", makefile, "demo", "GO="+filepath.Join(dir, "go"), "ARGS=-once")
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if (err == nil) != tt.ok {
				t.Errorf("%v", err)
			}
			for _, s := range tt.says {
				if !strings.Contains(string(out), s) {
					t.Errorf("no %q in\n%s", s, out)
				}
			}
			for _, s := range append(tt.not, "\x1b", "\r") { // nobody sees a terminal here
				if strings.Contains(string(out), s) {
					t.Errorf("%q in\n%s", s, out)
				}
			}
		})
	}
}

// TestMakeNeed: an old Node.js is named before the official clients break on it.
func TestMakeNeed(t *testing.T) {
	node := filepath.Join(t.TempDir(), "node")
	for version, says := range map[string]string{"18.19.0": "Node.js v18.19.0 is too old: install Node.js 20 or newer", "20.0.0": ""} {
		script := "#!/bin/sh\ncase $1 in --version) echo v" + version + ";; -e) exit " + map[bool]string{true: "1", false: "0"}[says != ""] + ";; esac\n"
		if err := os.WriteFile(node, []byte(script), 0o700); err != nil { //nolint:gosec // it is run
			t.Fatal(err)
		}
		out, err := exec.Command("make", "-C", "../..", "need", "NODE="+node).CombinedOutput()
		if (err == nil) != (says == "") || !strings.Contains(string(out), says) {
			t.Errorf("%s: %v: %s", version, err, out)
		}
	}
}
