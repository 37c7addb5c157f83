package offer

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Quotes let requirements prove that they were asked for lately, for a line, by a gateway
// that shares our ledger: another one than this, or this one before it was restarted. Who
// was asked for a price can pay it then, though the price is another one by now. The proof
// is a MAC which version 2 clients send back; see x402.Requirement. Others get a fresh
// challenge there, and nothing has moved.
type Quotes struct {
	key   atomic.Pointer[[]byte]
	tried chan struct{} // closed once the ledger was asked for its secret
}

// NewQuotes returns quotes that have no secret so far; see Learn.
func NewQuotes() *Quotes { return &Quotes{tried: make(chan struct{})} }

const (
	// quoteEvery is how long a gateway makes the same quotes.
	quoteEvery = 30 * time.Second
	// quoteAhead is how far another gateway's clock may be ahead of ours.
	quoteAhead = 2 * time.Minute
	// learnAgain is how long after a failure the ledger is asked again.
	learnAgain = time.Second
)

// Learn asks for the secret of the ledger until it is told, or ctx ends. Before that no
// quotes are made.
func (q *Quotes) Learn(ctx context.Context, secret func(context.Context) ([]byte, error)) {
	err := q.ask(ctx, secret)
	close(q.tried)
	for err != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(learnAgain):
		}
		err = q.ask(ctx, secret)
	}
}

// ask asks for the secret once. A ledger that panics must not end the process.
func (q *Quotes) ask(ctx context.Context, secret func(context.Context) ([]byte, error)) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("asking the ledger for its secret: panic: %v", p)
		}
	}()
	told, err := secret(ctx)
	if err == nil {
		q.use(told)
	}
	return err
}

// use makes quotes with what only those who share the ledger know.
func (q *Quotes) use(secret []byte) {
	mac := hmac.New(sha256.New, secret)
	_, _ = mac.Write([]byte("paywall quotes"))
	key := mac.Sum(nil)
	q.key.Store(&key)
}

// make quotes a requirement for a line at a time, in units of quoteEvery; "" if it cannot.
func (q *Quotes) make(r x402.Requirement, line string, at int64) string {
	key := q.key.Load()
	if key == nil || line == "" {
		return ""
	}
	r.Quote = ""
	raw, err := json.Marshal(r)
	said := jsontext.Value(raw)
	if err != nil || said.Canonicalize() != nil {
		return ""
	}
	when := strconv.FormatInt(at, 36)
	mac := hmac.New(sha256.New, *key)
	for _, part := range []string{when, line, string(said)} {
		_, _ = mac.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
	return when + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// proves says whether a requirement was asked for, for a line, and can still be paid.
func (q *Quotes) proves(r x402.Requirement, line string, now time.Time) bool {
	when, _, _ := strings.Cut(r.Quote, ".")
	at, err := strconv.ParseInt(when, 36, 40)
	if err != nil {
		return false
	}
	age := now.Sub(time.Unix(at*int64(quoteEvery/time.Second), 0))
	made := q.make(r, line, at)
	return made != "" && hmac.Equal([]byte(made), []byte(r.Quote)) &&
		age >= -quoteAhead && age <= MaxTimeout+MaxTimeout/10+quoteEvery
}

// quoted is a challenge with quotes for one line.
type quoted struct {
	at       int64
	template *x402.Template
}

// Challenge says what a line asks for, with quotes if there can be some.
func (o *Offer) Challenge(q *Quotes, line string, now time.Time) *x402.Template {
	at := now.Unix() / int64(quoteEvery/time.Second)
	if known, ok := o.quoted.Load(line); ok && known.(*quoted).at == at {
		return known.(*quoted).template
	}
	requirements := slices.Clone(o.requirements)
	for i := range requirements {
		if requirements[i].Quote = q.make(requirements[i], line, at); requirements[i].Quote == "" {
			return o.Template
		}
	}
	template, err := x402.NewTemplate(requirements, o.of.Description, o.of.MimeType, o.Extensions)
	if err != nil {
		return o.Template // nothing new can be wrong with it
	}
	template = template.Say(o.words())
	o.quoted.Store(line, &quoted{at, template})
	return template
}

// Quoted returns what a payment matches that says, with our quote, what was asked for on a
// line: of the facilitators those that can settle it. It is asked where the payment fits
// nothing of the current offer. Just after a start it waits for the ledger, unless ctx ends.
func (o *Offers) Quoted(ctx context.Context, q *Quotes, p *x402.Payment, line string, now time.Time) (m Match, ok bool) {
	r, err := p.Chosen()
	if err != nil || r.Quote == "" {
		return m, false
	}
	select {
	case <-q.tried:
	case <-ctx.Done():
	}
	if !q.proves(r, line, now) || o.facilitators.Closed(r.Network) {
		return m, false
	}
	r.Quote = ""
	m = Match{Requirement: r, Option: tokenOf(o.options, r.Network, r.Asset)}
	if m.Option == nil {
		return m, false
	}
	m.Option.Requirement = r
	for _, b := range o.backends {
		kind, known := kindFor(m.Option, b.Source.Snapshot())
		if (kind != nil || !known) && fits(kind, p, r) {
			m.Settlers = append(m.Settlers, b.Named)
		}
	}
	return m, len(m.Settlers) > 0
}

// fits says whether a payment's requirement has what a facilitator puts into those that it
// settles: a fee payer, say, or who may charge upto. kind is nil while nothing has been heard
// of the facilitator.
func fits(kind *x402.Kind, p *x402.Payment, r x402.Requirement) bool {
	switch {
	case r.Scheme == x402.SchemeUpto:
		address, ok := facilitatorAddress(&x402.Kind{Extra: r.Extra})
		own, known := facilitatorAddress(kind)
		return ok && known && address == own
	case strings.HasPrefix(r.Network, "eip155:"):
		return true
	case kind == nil:
		return false
	}
	r.Extra = kind.Extra
	_, err := x402.Match(p, []x402.Requirement{r})
	return err == nil
}
