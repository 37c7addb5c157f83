//go:build servers

// Package servers puts the gate before real servers (nginx, Apache, PHP, Express,
// gunicorn), and sends them requests that do not pay. `make servers` runs it.
package servers

import (
	"testing"

	harness "github.com/caddy-paywall/caddy-paywall/test/gate"
)

func TestMain(m *testing.M) { harness.Main(m) }
