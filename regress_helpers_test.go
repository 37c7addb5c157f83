package paywall_test

import (
	"net/http"
	"sync"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// recorder keeps the bodies of /settle.
type recorder struct {
	mu     sync.Mutex
	bodies []string
}

// around answers with h and remembers what was asked.
func (c *recorder) around(f *gate.Facilitator, h http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		body := string(gate.Body(r))
		c.mu.Lock()
		c.bodies = append(c.bodies, body)
		c.mu.Unlock()
		h(rw, r)
	}
}

func (c *recorder) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.bodies...)
}
