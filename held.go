package paywall

import (
	"sync"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// heldKeys are the payments that requests of this process hold. Copies of them, however
// many come, are told so without asking the ledger.
type heldKeys struct {
	mu   sync.Mutex
	keys map[ledger.Key]int
}

var held = &heldKeys{keys: map[ledger.Key]int{}}

func (h *heldKeys) has(key ledger.Key) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keys[key] > 0
}

func (h *heldKeys) add(key ledger.Key, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keys[key] += n; h.keys[key] <= 0 {
		delete(h.keys, key)
	}
}
