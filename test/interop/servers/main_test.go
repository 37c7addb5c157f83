//go:build servers

// Package servers puts the gate before real servers (nginx, Apache, PHP, Express,
// gunicorn), and sends them requests that do not pay. `make servers` runs it.
package servers

import (
	"os"
	"testing"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-paywall/caddy-paywall"
)

func TestMain(m *testing.M) {
	// Caddy keeps state in the user's directories; tests must not.
	dir, err := os.MkdirTemp("", "paywall-servers-")
	if err != nil {
		panic(err)
	}
	for _, name := range []string{"XDG_DATA_HOME", "XDG_CONFIG_HOME", "HOME"} {
		os.Setenv(name, dir)
	}
	code := m.Run()
	_ = caddy.Stop()
	os.RemoveAll(dir)
	os.Exit(code)
}
