//go:build servers

package servers

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
)

// startGunicorn is Flask on gunicorn, as most small sites in Python.
func startGunicorn(t *testing.T) *server {
	dir, address := site(t, "files", "files"), loopback.FreeAddress(t)
	app, err := os.ReadFile("testdata/flask/shop.py")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "shop.py"), app)
	start(t, address, dir, program(t, "/usr/bin/gunicorn"), "--bind", address, "--workers", "2", "--chdir", dir, "--log-level", "critical", "shop:app")
	return newServer("gunicorn + Flask", dir, "reverse_proxy "+address, common)
}
