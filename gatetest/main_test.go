// Package gatetest drives a real Caddy with the gate over sockets, in HTTP/1.1,
// HTTP/2 (with and without TLS) and HTTP/3, beside the same site without a gate.
package gatetest

import (
	"os"
	"syscall"
	"testing"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-paywall/caddy-paywall"
	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
)

// certificate is the file with the sites' certificate and its key.
var certificate string

// xconnect lets Go's HTTP/2 speak extended CONNECT; it is read before main.
const xconnect = "http2xconnect=1"

func TestMain(m *testing.M) {
	if os.Getenv("GODEBUG") != xconnect {
		os.Setenv("GODEBUG", xconnect)
		self, err := os.Executable()
		if err == nil {
			err = syscall.Exec(self, os.Args, os.Environ())
		}
		panic(err)
	}
	// Caddy keeps state in the user's directories; tests must not.
	dir, err := os.MkdirTemp("", "paywall-test-")
	if err != nil {
		panic(err)
	}
	if certificate, err = loopback.Certificate(dir, host); err != nil {
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
