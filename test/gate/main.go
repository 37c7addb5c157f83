// Package gate runs a gate for tests: a Caddyfile goes in, and a running Caddy
// comes out, with a facilitator and an upstream that do as a test says.
//
//	w := gate.New(t, "price /paid/* $0.01")
//	w.Upstream.On(gate.Says(404, ""))
//	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 404, "")
//	w.Counts(1, 1, 0) // requests of the upstream, calls of /verify and of /settle
//
// One process runs one Caddy: tests of a package follow each other.
package gate

import (
	"os"
	"testing"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-paywall/caddy-paywall"
	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
)

// certificate is the file with the certificate of Host and its key.
var certificate string

// Main runs the tests of a package and ends the process. Caddy keeps state in the
// user's directories; tests must not.
func Main(m *testing.M) {
	dir, err := os.MkdirTemp("", "paywall-test-")
	if err != nil {
		panic(err)
	}
	if certificate, err = loopback.Certificate(dir, Host); err != nil {
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
