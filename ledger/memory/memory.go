// Package memory is a ledger in the memory of one process. It forgets all when
// the process ends, also what was paid and not delivered: it is for development,
// for tests, and for those who say that they accept the loss.
package memory

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// DefaultMax is how many payments a ledger holds at most, unless told otherwise.
// A delivered payment takes about 1.1 kB, another one its request besides.
const DefaultMax = 1_000_000

// Options are the options of a ledger; the zero value is good.
type Options struct {
	// Max is how many payments the ledger holds at most; 0 means DefaultMax.
	Max int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Random is where tokens come from; nil means crypto/rand. It must be safe
	// to read from several goroutines.
	Random io.Reader
}

// Ledger is a ledger.Ledger in memory.
//
// It never forgets a payment that may not be forgotten (see ledger.Forgettable):
// when it is full of those, Claim returns ledger.ErrFull. What is of no more use
// gives its room to new payments: released ones at once, claims whose holder is
// gone when their lease ends, delivered ones after their Keep. Refused ones, of
// which only the latest are kept, and payments that were settled, not delivered,
// and are past their Keep, go when the room is needed. Of payments that nobody can
// fetch any more the request and the answer go before that; see ledger.Shed.
//
// It has no goroutines of its own: every Claim clears away a little.
type Ledger struct {
	max    int
	now    func() time.Time
	random io.Reader

	// One lock for all. An operation holds it for about a microsecond, which is
	// little beside the parsing and the settling of a payment.
	mu     sync.Mutex
	rows   map[ledger.Key]*row
	all    byAge
	open   index
	room   room
	chains map[string]string // first block by network
	secret []byte
}

var _ ledger.Ledger = (*Ledger)(nil)

// row is what the ledger has of one payment, and its places in the structures by
// which it is found. A key that is claimed anew gets a new row.
type row struct {
	payment ledger.Payment
	token   ledger.Token

	age    ageLinks
	open   openLinks
	queues [places]queuePlace
}

// New makes an empty ledger.
func New(o Options) *Ledger {
	l := &Ledger{
		now:    o.Now,
		random: o.Random,
		rows:   make(map[ledger.Key]*row),
		open:   make(index),
		room:   newRoom(),
		chains: make(map[string]string),
	}
	l.SetMax(o.Max)
	if l.now == nil {
		l.now = time.Now
	}
	if l.random == nil {
		l.random = rand.Reader
	}
	return l
}

// SetMax changes how many payments the ledger holds at most; 0 means DefaultMax.
// Payments that it has stay.
func (l *Ledger) SetMax(n int) {
	if n <= 0 {
		n = DefaultMax
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.max = n
}

// Claim implements ledger.Ledger.
func (l *Ledger) Claim(ctx context.Context, p ledger.Payment, lease time.Duration) (ledger.Claim, error) {
	if err := ctx.Err(); err != nil {
		return ledger.Claim{}, err
	}
	token, err := ledger.NewToken(l.random)
	if err != nil {
		return ledger.Claim{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	var known ledger.Payment
	old := l.rows[p.Key]
	if old != nil {
		known = old.payment
	}
	p, err = ledger.ApplyClaim(known, p, now, lease)
	if err != nil {
		return ledger.Claim{}, ledger.CloneTaken(err)
	}
	if old != nil {
		l.forget(old)
	}
	if !l.makeRoom(now) {
		return ledger.Claim{}, fmt.Errorf("%w: %d payments", ledger.ErrFull, len(l.rows))
	}
	p = p.Pack()
	r := &row{payment: p, token: token}
	l.rows[p.Key] = r
	l.all.push(r)
	l.open.add(r)
	l.room.put(r)
	return ledger.Claim{Token: token, Payment: p.Clone()}, nil
}

// Take implements ledger.Ledger.
func (l *Ledger) Take(ctx context.Context, key ledger.Key, to ledger.State, lease time.Duration) (ledger.Claim, error) {
	if err := ctx.Err(); err != nil {
		return ledger.Claim{}, err
	}
	token, err := ledger.NewToken(l.random)
	if err != nil {
		return ledger.Claim{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rows[key]
	if r == nil {
		return ledger.Claim{}, ledger.ErrNotFound
	}
	p, err := ledger.ApplyTake(r.payment, to, l.now(), lease)
	if err != nil {
		return ledger.Claim{}, ledger.CloneTaken(err)
	}
	r.token = token
	l.change(r, p)
	return ledger.Claim{Token: token, Payment: p.Clone()}, nil
}

// Renew implements ledger.Ledger.
func (l *Ledger) Renew(ctx context.Context, c ledger.Claim, lease time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.held(c)
	if r == nil {
		return ledger.ErrLost
	}
	p, err := ledger.ApplyRenew(r.payment, l.now(), lease)
	if err != nil {
		return err
	}
	l.change(r, p)
	return nil
}

// Move implements ledger.Ledger.
func (l *Ledger) Move(ctx context.Context, c ledger.Claim, ch ledger.Change) (ledger.Payment, error) {
	if err := ctx.Err(); err != nil {
		return ledger.Payment{}, err
	}
	ch = ch.Clone()
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.held(c)
	if r == nil {
		return ledger.Payment{}, ledger.ErrLost
	}
	p, err := ledger.ApplyMove(r.payment, ch, l.now())
	if err != nil {
		return ledger.Payment{}, err
	}
	if p.Lease.IsZero() {
		r.token = ""
	}
	if p.State == ledger.Released {
		// Anybody can have made it, for nothing, and it is free.
		l.forget(r)
	} else {
		l.change(r, p)
	}
	return p.Clone(), nil
}

// Get implements ledger.Ledger.
func (l *Ledger) Get(ctx context.Context, key ledger.Key) (ledger.Payment, error) {
	if err := ctx.Err(); err != nil {
		return ledger.Payment{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rows[key]
	if r == nil {
		return ledger.Payment{}, ledger.ErrNotFound
	}
	return r.payment.Clone(), nil
}

// held returns the row that the claim holds, or nil.
func (l *Ledger) held(c ledger.Claim) *row {
	r := l.rows[c.Payment.Key]
	if r == nil || c.Token == "" || r.token != c.Token {
		return nil
	}
	return r
}

// change gives a row its new contents and its places by them.
func (l *Ledger) change(r *row, p ledger.Payment) {
	l.open.remove(r)
	r.payment = p
	l.open.add(r)
	l.room.put(r)
	// Refused payments cost nobody anything: no flood of them may fill the ledger.
	if l.room.refused.len() > maxRefused {
		l.forget(l.room.refused.first())
	}
}

func (l *Ledger) forget(r *row) {
	delete(l.rows, r.payment.Key)
	l.all.remove(r)
	l.open.remove(r)
	l.room.remove(r)
}
