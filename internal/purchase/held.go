package purchase

import (
	"sync"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// heldKeys are the payments that requests of this process hold. Copies of them, however
// many come, are told so without asking the ledger.
type heldKeys struct {
	mu   sync.Mutex
	keys map[ledger.Key]int
	left map[ledger.Key]bool // whether the payer has left, though the upstream goes on, once that is known
	// claiming are those that somebody is about to hold: others may see it in the ledger
	// before he knows.
	claiming map[ledger.Key]int
	vain     map[ledger.Key]bool // what goes out gives the payer nothing that he has paid for
}

func newHeldKeys() *heldKeys {
	return &heldKeys{keys: map[ledger.Key]int{}, left: map[ledger.Key]bool{}, vain: map[ledger.Key]bool{}, claiming: map[ledger.Key]int{}}
}

// payerLeft notes that the payer of a purchase has left that is still held.
func (h *heldKeys) payerLeft(key ledger.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.left[key]; !known && h.keys[key] > 0 {
		h.left[key] = true
	}
}

// payerHasAll notes that the payer of a purchase that is still held has got all of it:
// when he leaves now, nothing is lost.
func (h *heldKeys) payerHasAll(key ledger.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keys[key] > 0 {
		h.left[key] = false
	}
}

// givesNothing notes that a purchase that is still held gets an answer that is no goods.
// The payer knows from its header, and may come again while the rest is on its way.
func (h *heldKeys) givesNothing(key ledger.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keys[key] > 0 {
		h.vain[key] = true
	}
}

// isLost says whether the payer of a purchase that is still held may come again for what
// he has not got.
func (h *heldKeys) isLost(key ledger.Key) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.left[key] || h.vain[key]
}

func (h *heldKeys) hasLeft(key ledger.Key) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.left[key]
}

func (h *heldKeys) isVain(key ledger.Key) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.vain[key]
}

func (h *heldKeys) has(key ledger.Key) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keys[key] > 0
}

// claims notes that a payment is about to be held, until the function that it returns is
// called.
func (h *heldKeys) claims(key ledger.Key) (done func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.claiming[key]++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.claiming[key]--; h.claiming[key] <= 0 {
			delete(h.claiming, key)
		}
	}
}

// hasOrClaims says whether a request of this process holds a payment, or may just have got
// it.
func (h *heldKeys) hasOrClaims(key ledger.Key) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keys[key] > 0 || h.claiming[key] > 0
}

func (h *heldKeys) add(key ledger.Key, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keys[key] += n; h.keys[key] <= 0 {
		delete(h.keys, key)
		delete(h.left, key)
		delete(h.vain, key)
	}
}
