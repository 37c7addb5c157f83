package routes

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoFalseAlarm puts a gate before everything that answers, where the
// directive's order puts it, into each config that Caddy's own tests adapt. None
// is refused.
func TestNoFalseAlarm(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/caddyserver/caddy/v2").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "caddytest/integration/caddyfile_adapt/*.caddyfiletest"))
	if err != nil || len(files) < 100 {
		t.Fatal("where are Caddy's configs?", len(files), err)
	}
	checked := 0
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, adapted, _ := strings.Cut(string(content), "----------")
		var config map[string]any
		if json.Unmarshal([]byte(adapted), &config) != nil || !addGate(config) {
			continue // an error is expected, or there is no site
		}
		checked++
		raw, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Parse(raw)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		findings, err := Check(c)
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for _, f := range findings {
			switch {
			case f.Severity == Error:
				t.Errorf("%s is refused: %s", filepath.Base(file), f)
			case f.Rule == RuleAnsweredBefore:
				t.Errorf("%s: nothing answers before the gate: %s", filepath.Base(file), f)
			}
		}
	}
	if checked < 80 {
		t.Errorf("only %d configs were checked", checked)
	}
}

// addGate puts a gate at the beginning of each site.
func addGate(config map[string]any) bool {
	added := false
	at := func(v any, name string) any {
		m, _ := v.(map[string]any)
		return m[name]
	}
	servers, _ := at(at(at(config, "apps"), "http"), "servers").(map[string]any)
	for _, s := range servers {
		sites, _ := at(s, "routes").([]any)
		for _, site := range sites {
			handlers, _ := at(site, "handle").([]any)
			if len(handlers) == 0 || at(handlers[0], "handler") != "subroute" {
				continue
			}
			inner := handlers[0].(map[string]any) //nolint:forcetypeassert // it has a member
			list, _ := inner["routes"].([]any)
			gate := map[string]any{"handle": []any{map[string]any{
				"handler": "paywall", "prices": []any{map[string]any{"paths": []any{"/*"}, "amount": "$0.01"}},
			}}}
			inner["routes"] = append([]any{gate}, list...)
			added = true
		}
	}
	return added
}
