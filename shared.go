package paywall

import (
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/internal/settlement"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// shared is what all configs of a process share, since claims and settlements outlive
// their config: the bounds, what was offered and said lately, and what is under way.
type shared struct {
	admission *admission.Control
	offered   *offer.History
	verdicts  *verdicts
	held      *heldKeys
	orders    *orderBook

	unrecorded settlement.Unrecorded

	// inDoubt is what the reconciler saw in its last round, and owed what countOwed did.
	inDoubt, owed atomic.Pointer[metrics.Count]
}

func newShared() *shared {
	held := newHeldKeys()
	return &shared{
		admission: admission.New(),
		offered:   offer.NewHistory(),
		verdicts:  new(verdicts),
		held:      held,
		orders:    &orderBook{open: map[orderKey][]*order{}, held: held},
	}
}

// Destruct implements caddy.Destructor.
func (*shared) Destruct() error { return nil }

// sharedStates has one entry, while a config with paywalls is loaded: a reload provisions
// the new config before the old one goes.
var sharedStates = caddy.NewUsagePool()

const sharedKey = "paywall"

func takeShared() (*shared, error) {
	s, _, err := sharedStates.LoadOrNew(sharedKey, func() (caddy.Destructor, error) { return newShared(), nil })
	if err != nil {
		return nil, err
	}
	return s.(*shared), nil
}

// currentShared is the shared value while a config with paywalls is loaded, or nil.
func currentShared() (s *shared) {
	sharedStates.Range(func(_, v any) bool {
		s = v.(*shared)
		return true
	})
	return s
}

// heldKeys are the payments that requests of this process hold. Copies of them, however
// many come, are told so without asking the ledger.
type heldKeys struct {
	mu   sync.Mutex
	keys map[ledger.Key]int
	left map[ledger.Key]bool // whether the payer has left, though the upstream goes on, once that is known
	vain map[ledger.Key]bool // what goes out gives the payer nothing that he has paid for
}

func newHeldKeys() *heldKeys {
	return &heldKeys{keys: map[ledger.Key]int{}, left: map[ledger.Key]bool{}, vain: map[ledger.Key]bool{}}
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
		delete(h.left, key)
		delete(h.vain, key)
	}
}
