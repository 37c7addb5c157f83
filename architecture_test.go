package paywall_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

const module = "github.com/caddy-paywall/caddy-paywall"

// notOfTheHouse are packages that only tests and measurements use.
var notOfTheHouse = regexp.MustCompile(`^(bench|test|tools)(/|$)|^internal/(loopback|typeddata)$`)

// TestImportsGoDown: a package imports only what stands below it in the table of
// docs/architecture.md, and the table has them all. With -v it prints the graph.
func TestImportsGoDown(t *testing.T) {
	level := rowsOf(t, "docs/architecture.md")
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for list := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := list.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		from := nameIn(p.ImportPath)
		if notOfTheHouse.MatchString(from) {
			continue
		}
		at, known := level[from]
		if !known {
			t.Errorf("docs/architecture.md does not tell of %s", from)
			continue
		}
		seen[from] = true
		var to []string
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, module) || notOfTheHouse.MatchString(nameIn(imported)) {
				continue
			}
			to = append(to, nameIn(imported))
			if below := level[nameIn(imported)]; below <= at {
				t.Errorf("%s imports %s, which does not stand below it", from, nameIn(imported))
			}
		}
		t.Logf("%-24s → %s", from, strings.Join(to, " "))
	}
	for name := range level {
		if !seen[name] {
			t.Errorf("docs/architecture.md tells of %s, which does not exist", name)
		}
	}
}

// nameIn is how the table names a package.
func nameIn(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}

// rowsOf reads the packages of the table, each with its row.
func rowsOf(t *testing.T, file string) map[string]int {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	level, row := map[string]int{}, 0
	name := regexp.MustCompile("`([^`]+)`")
	for lines := bufio.NewScanner(f); lines.Scan(); {
		cells := strings.Split(lines.Text(), "|")
		if len(cells) < 4 {
			continue
		}
		row++
		for _, m := range name.FindAllStringSubmatch(cells[1], -1) {
			level[m[1]] = row
		}
	}
	if len(level) == 0 {
		t.Fatalf("%s has no table", file)
	}
	return level
}
