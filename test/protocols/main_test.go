// Package protocols drives the gate over sockets, in HTTP/1.1, HTTP/2 (with and
// without TLS) and HTTP/3, beside the same site without a gate.
package protocols

import (
	"os"
	"syscall"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

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
	gate.Main(m)
}
