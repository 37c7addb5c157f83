//go:build servers

package servers

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
)

// startExpress is the most used framework of Node.js.
func startExpress(t *testing.T) *server {
	here, err := filepath.Abs("express")
	if err != nil {
		t.Fatal(err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("Node.js is missing: install Node.js 20 or newer from https://nodejs.org")
	}
	if _, err := os.Stat(filepath.Join(here, "node_modules", "express")); err != nil {
		t.Fatal("Express is missing: run `make servers`, which installs it")
	}
	dir, address := site(t, "files", "files"), loopback.FreeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	start(t, address, dir, node, filepath.Join(here, "server.mjs"), port, dir)
	return newServer("Express", dir, "reverse_proxy "+address, common)
}
