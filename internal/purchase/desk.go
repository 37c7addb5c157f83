package purchase

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/internal/settlement"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Desk is where the purchases of a gate are made.
type Desk struct {
	*Shared
	Settler    *settlement.Settler
	History    *offer.History
	Quotes     *offer.Quotes
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
	// Secret is what all gateways know that share the ledger which has a payment.
	Secret func(context.Context, ledger.Claim) ([]byte, error)
	// Refuse answers a request in the gate's own words, and ends its purchase.
	Refuse func(w http.ResponseWriter, r *http.Request, p *Purchase, f Refusal) error
	// Decorate prepares the header of an answer of the upstream for browsers.
	Decorate func(header http.Header, r *http.Request)

	warned atomic.Int64 // when the log was last told of a client network, in Unix seconds
}

// NewDesk makes a desk with the usual bounds. What is nil or zero in it is for the gate to say.
func NewDesk(settler *settlement.Settler, shared *Shared, history *offer.History, quotes *offer.Quotes, logger *zap.Logger) *Desk {
	return &Desk{
		Shared: shared, Settler: settler, History: history, Quotes: quotes, Candidates: offer.Candidates{},
		AnswerWithin: answerWithin, RenewEvery: ledger.RenewEvery, UploadGrace: delivery.UploadGrace, HoldWithin: holdWithin,
		Now: time.Now, Logger: logger, Sampled: logger,
	}
}

// Shown is what can be offered now. If that is nothing, nobody is asked to sign what nobody
// could settle, or remember.
func (d *Desk) Shown(asked Offered, now time.Time) (*offer.Offer, *Refusal) {
	if wait, err := d.Settler.Ledger.Down(); err != nil {
		return nil, closed(codeLedger, wait, err)
	}
	shown, wait, err := asked.Price.Offers(asked.First).Shown(asked.Current, now)
	if err != nil {
		return nil, closed(x402.CodeFacilitatorUnavailable, wait, err)
	}
	return shown, nil
}

// Challenge asks for an offer, which can be paid from now on for as long as it says.
func (d *Desk) Challenge(asked Offered, shown *offer.Offer, now time.Time) *x402.Template {
	d.History.Remember(asked.Resource, shown, now)
	return shown.Challenge(d.Quotes, asked.Line.ID, now)
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
		Orders:   newOrderBook(held),
	}
}
