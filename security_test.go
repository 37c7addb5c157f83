package paywall_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityNamesTests: every test that SECURITY.md names exists, and every
// promise has some.
func TestSecurityNamesTests(t *testing.T) {
	have := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(source), -1) {
			have[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	promises := regexp.MustCompile(`(?m)^\| \d\. .*$`).FindAllString(string(text), -1)
	if len(promises) != 7 {
		t.Fatalf("%d promises", len(promises))
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
	for _, promise := range promises {
		tests := named.FindAllStringSubmatch(promise, -1)
		if len(tests) < 3 {
			t.Errorf("few tests stand for: %s", promise)
		}
		for _, m := range tests {
			if !have[m[1]] {
				t.Errorf("SECURITY.md names %s, which does not exist", m[1])
			}
		}
	}
}
