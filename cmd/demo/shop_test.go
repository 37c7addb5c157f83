package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/client"
	"github.com/caddy-paywall/caddy-paywall/ledger/sqlite"
)

// TestAskedForMoney: whatever came instead of a challenge is said.
func TestAskedForMoney(t *testing.T) {
	closed := &client.Result{Outcome: client.Unpriced, Response: &http.Response{Status: "503 Service Unavailable", Body: http.NoBody}}
	for name, tt := range map[string]struct {
		result *client.Result
		err    error
		says   string // "" means that it was asked for
	}{
		"asked":       {&client.Result{Outcome: client.Unpaid, Challenge: &client.Challenge{}}, client.ErrNoKey, ""},
		"closed":      {closed, nil, "503 Service Unavailable"},
		"unreachable": {nil, errors.New("connection refused"), "connection refused"},
		"unpayable":   {&client.Result{Outcome: client.Unpaid}, errors.New("no offers"), "no offers"},
	} {
		err := askedForMoney(tt.result, tt.err)
		if (err == nil) != (tt.says == "") || err != nil && (!strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "%!")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckSite(t *testing.T) {
	for site, ok := range map[string]bool{
		"http://localhost:8402": true, "http://127.0.0.1:8402": true, "http://[::1]:8402": true,
		"localhost:8402": false, "https://localhost:8402": false, "http://localhost": false, "http://localhost:0": false,
		"http://localhost:8402/": false, "http://localhost:8402/shop": false, "http://localhost:8402?": false, ":8402": false, "": false,
	} {
		if err := checkSite(site); (err == nil) != ok {
			t.Errorf("%q: %v", site, err)
		}
	}
}

// TestInvite: it says where the payments are, unless a Caddyfile keeps them
// elsewhere.
func TestInvite(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	file := sqlite.DefaultFile()
	line := "caddy paywall payments --file " + file + " "
	for _, kept := range []bool{false, true} {
		if kept {
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var said strings.Builder
		(&shop{}).invite(func(format string, a ...any) { fmt.Fprintf(&said, format+"\n", a...) })
		if strings.Contains(said.String(), line) != kept {
			t.Errorf("kept %v: %s", kept, said.String())
		}
	}
}

// TestExampleIsTheProjects: the demo runs what the project shows.
func TestExampleIsTheProjects(t *testing.T) {
	shown, err := os.ReadFile("../../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	if string(shown) != string(example) {
		t.Error("cp Caddyfile.example cmd/demo/")
	}
}

// TestDemoInAnyFolder: it needs no file of the checkout.
func TestDemoInAnyFolder(t *testing.T) {
	t.Chdir(t.TempDir())
	if content, err := caddyfile(""); err != nil || len(content) == 0 {
		t.Errorf("%d bytes, %v", len(content), err)
	}
	var said strings.Builder
	(&shop{}).invite(func(format string, a ...any) { fmt.Fprintf(&said, format+"\n", a...) })
	if strings.Contains(said.String(), "go run ./cmd") || !strings.Contains(said.String(), "caddy paywall pay ") {
		t.Errorf("what it says needs the checkout: %s", said.String())
	}
}
