package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
)

// maxReason is how much of a reason is kept, in bytes.
const maxReason = 512

// ReasonReverted is the Reason of a Delivered payment whose money a reorganisation
// of the chain took back.
const ReasonReverted = "settlement_reverted"

// States returns all states, in the order of a payment's life.
func States() []State {
	return []State{Claimed, Settling, Settled, Delivering, Delivered, Released, Refused, Unknown}
}

// Open says whether a payment in this state is unfinished business: money has
// moved or may have, and the goods have not arrived.
func (s State) Open() bool {
	switch s {
	case Settling, Settled, Delivering, Unknown:
		return true
	default:
		return false
	}
}

// Finished says whether nothing more happens to a payment in this state by itself: it
// is neither claimed nor open.
func (s State) Finished() bool { return s != Claimed && !s.Open() }

// Purchase is who bought what. Gateways ask with every payment what its payer has under way
// for this request, so stores find what is not finished by it.
type Purchase struct{ Payer, Method, Host, URL string }

// Purchase is what the payment bought.
func (p *Payment) Purchase() Purchase { return Purchase{p.Payer, p.Method, p.Host, p.URL} }

// Purchase is the one that the filter asks for, if it names all of it.
func (f Filter) Purchase() (p Purchase, ok bool) {
	return Purchase{f.Payer, f.Method, f.Host, f.URL}, f.Payer != "" && f.Method != "" && f.Host != "" && f.URL != ""
}

// Unfinished says whether the filter selects only what is not finished.
func (f Filter) Unfinished() bool {
	for _, s := range f.States {
		if s.Finished() {
			return false
		}
	}
	return len(f.States) > 0
}

// ID is the payment's public name: it tells two payments apart and nothing
// about what was signed.
func ID(key Key) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16])
}

// NewToken makes a token of 128 bits from random.
func NewToken(random io.Reader) (Token, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("%w: no randomness for a token: %w", ErrUnavailable, err)
	}
	return Token(hex.EncodeToString(b[:])), nil
}

// Match says whether the filter selects the row. It does not know Limit.
func (f Filter) Match(p Payment) bool {
	switch {
	case len(f.States) > 0 && !slices.Contains(f.States, p.State),
		f.Payer != "" && f.Payer != p.Payer,
		f.Identifier != "" && f.Identifier != p.Identifier,
		f.Method != "" && f.Method != p.Method,
		f.Host != "" && f.Host != p.Host,
		f.URL != "" && f.URL != p.URL,
		!f.Since.IsZero() && p.Created.Before(f.Since),
		!f.Until.IsZero() && !p.Created.Before(f.Until):
		return false
	}
	return true
}

// learn merges the facts of a change into the row; what the change does not
// say stays.
func (p *Payment) learn(ch Change) {
	set(&p.Facilitator, ch.Facilitator)
	set(&p.Transaction, ch.Transaction)
	set(&p.Payer, ch.Payer)
	set(&p.Amount, ch.Amount)
	set(&p.Reason, cleanReason(ch.Reason))
	set(&p.Body, ch.Body)
	if ch.Status != 0 {
		p.Status = ch.Status
	}
	if len(ch.Request) > 0 {
		p.Request = ch.Request
	}
	if len(ch.Answer) > 0 {
		p.Answer = ch.Answer
	}
	p.Runs += ch.Runs
	p.Ended += ch.Ended
}

func set(to *string, fact string) {
	if fact != "" {
		*to = fact
	}
}

// cleanReason makes a reason short and printable. It is often a facilitator's
// text, goes to logs and lists, and must not be able to stop a change: not
// every database takes a NUL or broken UTF-8.
func cleanReason(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	s = strings.ToValidUTF8(s, "")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

const (
	// MaxLife is the longest life of an authorization that is taken: some wallets sign a day.
	// So long a former ledger has to be asked about what was used.
	MaxLife = 25 * time.Hour
	// KeepWithoutEnd is how long a payment is remembered whose authorization does not say when
	// it ends.
	KeepWithoutEnd = 90 * 24 * time.Hour
)
