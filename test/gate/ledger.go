package gate

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/memory"
)

func init() {
	caddy.RegisterModule(ledgerModule{})
	caddy.RegisterModule(inProcess{})
	httpcaddyfile.RegisterHandlerDirective("in_process", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		h.Next()
		return inProcess{}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("in_process", httpcaddyfile.Before, "reverse_proxy")
}

// Ledger is a ledger in memory that fails when told to. The reconciler sees
// nothing in it unless told otherwise, so that what is decided was decided by
// the request that asked.
type Ledger struct {
	*memory.Ledger
	move    atomic.Pointer[func(ledger.Claim, ledger.Change) error]
	listed  atomic.Pointer[func()]
	claim   atomic.Pointer[func()]
	forgets atomic.Pointer[func(ledger.Change) bool]
	Lost    atomic.Bool // every claim, for whoever renews it
	Visible atomic.Bool
	Rounds  atomic.Int64 // of the reconciler
	Claims  atomic.Int64 // how often it was asked to hold a payment
	Ahead   atomic.Int64 // of its clock, in nanoseconds
	// Elsewhere: what it holds is held by another gateway, which answers only while
	// Answers.
	Elsewhere, Answers atomic.Bool
	answer             atomic.Pointer[func(context.Context, ledger.Key) []byte]
	TakePanics         atomic.Bool // the next Take
	Silent             atomic.Bool // Get gets no answer
	Full               atomic.Bool // Claim does not
}

// HeldHere is what a ledger has that gateways share.
func (s *Ledger) HeldHere(ledger.Key) bool { return !s.Elsewhere.Load() }

// AskHolder implements ledger.Peers.
func (s *Ledger) AskHolder(ctx context.Context, key ledger.Key) ([]byte, error) {
	if answer := s.answer.Load(); answer != nil && s.Answers.Load() {
		if said := (*answer)(ctx, key); said != nil {
			return said, nil
		}
	}
	return nil, ledger.ErrNoAnswer
}

// AnswerPeers implements ledger.Peers.
func (s *Ledger) AnswerPeers(answer func(context.Context, ledger.Key) []byte) {
	s.answer.Store(&answer)
}

// Claim implements ledger.Ledger.
func (s *Ledger) Claim(ctx context.Context, p ledger.Payment, lease time.Duration) (ledger.Claim, error) {
	s.Claims.Add(1)
	if f := s.claim.Load(); f != nil {
		(*f)()
	}
	if s.Full.Load() {
		return ledger.Claim{}, fmt.Errorf("%w: the disk is full", ledger.ErrUnavailable)
	}
	return s.Ledger.Claim(ctx, p, lease)
}

// Renew implements ledger.Ledger.
func (s *Ledger) Renew(ctx context.Context, c ledger.Claim, lease time.Duration) error {
	if s.Lost.Load() {
		return ledger.ErrLost
	}
	return s.Ledger.Renew(ctx, c, lease)
}

// Move implements ledger.Ledger.
func (s *Ledger) Move(ctx context.Context, c ledger.Claim, ch ledger.Change) (ledger.Payment, error) {
	if f := s.move.Load(); f != nil {
		if err := (*f)(c, ch); err != nil {
			return ledger.Payment{}, err
		}
	}
	if f := s.forgets.Load(); f != nil && (*f)(ch) {
		row, err := s.Ledger.Get(ctx, c.Payment.Key)
		if err != nil {
			return row, err
		}
		return ledger.ApplyMove(row, ch, row.Updated)
	}
	return s.Ledger.Move(ctx, c, ch)
}

// Get implements ledger.Ledger.
func (s *Ledger) Get(ctx context.Context, key ledger.Key) (ledger.Payment, error) {
	if s.Silent.Load() {
		return ledger.Payment{}, ledger.ErrUnavailable
	}
	return s.Ledger.Get(ctx, key)
}

// Forgets has the ledger answer a change that is like this, and not keep it: so does a
// database that crashes before it is on the disk. nil: no more.
func (s *Ledger) Forgets(like func(ledger.Change) bool) {
	if like == nil {
		s.forgets.Store(nil)
		return
	}
	s.forgets.Store(&like)
}

// List implements ledger.Ledger.
func (s *Ledger) List(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	if f.Payer == "" { // the reconciler asks for all payers
		s.Rounds.Add(1)
	}
	if f.Payer == "" && !s.Visible.Load() {
		return func(func(ledger.Payment, error) bool) {}
	}
	then := s.listed.Load()
	if then == nil {
		return s.Ledger.List(ctx, f)
	}
	return func(yield func(ledger.Payment, error) bool) {
		for p, err := range s.Ledger.List(ctx, f) {
			(*then)()
			if !yield(p, err) {
				return
			}
		}
	}
}

// Take panics once, when told to.
func (s *Ledger) Take(ctx context.Context, key ledger.Key, to ledger.State, lease time.Duration) (ledger.Claim, error) {
	if s.TakePanics.CompareAndSwap(true, false) {
		panic("a bug in the ledger")
	}
	return s.Ledger.Take(ctx, key, to, lease)
}

// WithLedger makes w's next configs use a scripted ledger.
func (w *World) WithLedger() *Ledger {
	s := &Ledger{}
	s.Ledger = memory.New(memory.Options{Now: func() time.Time { return time.Now().Add(time.Duration(s.Ahead.Load())) }})
	script.Store(s)
	w.T.Cleanup(s.heal)
	return s
}

// heal ends all that fails, so that what is told again can end.
func (s *Ledger) heal() {
	s.OnMove(nil)
	s.Forgets(nil)
	s.BeforeClaim(nil)
	for _, fails := range []*atomic.Bool{&s.Lost, &s.TakePanics, &s.Silent, &s.Full} {
		fails.Store(false)
	}
}

// OnLedger makes a Caddyfile use the ledger of WithLedger.
func OnLedger(caddyfile string) string {
	return strings.Replace(caddyfile, "ledger memory i_accept_loss", "ledger test.scripted", 1)
}

// script is the ledger of the test that runs.
var script atomic.Pointer[Ledger]

type ledgerModule struct{ *Ledger }

func (ledgerModule) CaddyModule() caddy.ModuleInfo {
	// One name deeper than the others, so that messages that list the ledgers of
	// this build stay as they are.
	return caddy.ModuleInfo{ID: "paywall.ledgers.test.scripted", New: func() caddy.Module { return new(ledgerModule) }}
}

// Provision implements caddy.Provisioner.
func (m *ledgerModule) Provision(caddy.Context) error {
	m.Ledger = script.Load()
	return nil
}

// UnmarshalCaddyfile implements caddyfile.Unmarshaler.
func (*ledgerModule) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

// OnListed calls f before each row that a request is shown.
func (s *Ledger) OnListed(f func()) { s.listed.Store(&f) }

// OnMove calls f before each move, which fails with its error; nil: no more.
func (s *Ledger) OnMove(f func(ledger.Claim, ledger.Change) error) {
	if f == nil {
		s.move.Store(nil)
		return
	}
	s.move.Store(&f)
}

// BeforeClaim calls f before each claim; nil: no more.
func (s *Ledger) BeforeClaim(f func()) {
	if f == nil {
		s.claim.Store(nil)
		return
	}
	s.claim.Store(&f)
}
