package purchase

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/internal/settlement"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Desk is where the purchases of a gate are made.
type Desk struct {
	*Shared
	Settler    *settlement.Settler
	History    *offer.History
	Candidates offer.Candidates

	// RetryWindow is how long a purchase that was paid for and not delivered can be fetched.
	RetryWindow time.Duration
	// AnswerWithin is how long a payer waits for a settlement.
	AnswerWithin time.Duration
	// RenewEvery is how often a claim is renewed.
	RenewEvery time.Duration
	// UploadGrace is how long an upstream may wait for a body that is not paid for.
	UploadGrace time.Duration
	// HoldWithin is how long a payment may wait for the upstream.
	HoldWithin time.Duration
	// UpstreamHeaders: the upstream is told what it was paid.
	UpstreamHeaders bool

	Now     func() time.Time
	Logger  *zap.Logger
	Sampled *zap.Logger // for what a stranger can cause for nothing

	// Leaves says whether a Location leads away from the site.
	Leaves func(location string) bool
	// Secret is what all gateways that share the ledger know.
	Secret func(context.Context) ([]byte, error)
	// Refuse answers a request in the gate's own words, and ends its purchase.
	Refuse func(w http.ResponseWriter, r *http.Request, p *Purchase, f Refusal) error
	// Decorate prepares the header of an answer of the upstream for browsers.
	Decorate func(header http.Header, r *http.Request)

	warned atomic.Int64 // when the log was last told of a client network, in Unix seconds
}

// NewDesk makes a desk with the usual bounds, and without words of its own yet.
func NewDesk(settler *settlement.Settler, shared *Shared, history *offer.History, logger *zap.Logger) *Desk {
	return &Desk{
		Shared: shared, Settler: settler, History: history, Candidates: offer.Candidates{},
		AnswerWithin: answerWithin, RenewEvery: ledger.RenewEvery, UploadGrace: delivery.UploadGrace, HoldWithin: holdWithin,
		Now: time.Now, Logger: logger, Sampled: logger,
	}
}

// Line is what purchases know of a line of the price list.
type Line struct {
	ID     string           // a digest of the gate's place and the line's words; "" until the place is known
	Health admission.Health // of the upstream behind it
}

// Shared is what the purchases of all configs of a process share.
type Shared struct {
	Verdicts *verdicts
	Held     *heldKeys
	Orders   *orderBook
}

// NewShared makes what a process shares that has sold nothing yet.
func NewShared() *Shared {
	held := newHeldKeys()
	return &Shared{
		Verdicts: new(verdicts),
		Held:     held,
		Orders:   &orderBook{open: map[orderKey][]*order{}, held: held},
	}
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
