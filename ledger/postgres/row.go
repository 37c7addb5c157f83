package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// text is a column of text.
type text struct {
	column  string
	of      func(*ledger.Payment) *string
	changes bool // after the claim
}

// texts are all columns of text.
var texts = [...]text{
	{"state", func(p *ledger.Payment) *string { return (*string)(&p.State) }, true},
	{"payer", func(p *ledger.Payment) *string { return &p.Payer }, true},
	{"amount", func(p *ledger.Payment) *string { return &p.Amount }, true},
	{"facilitator", func(p *ledger.Payment) *string { return &p.Facilitator }, true},
	{"transaction", func(p *ledger.Payment) *string { return &p.Transaction }, true},
	{"reason", func(p *ledger.Payment) *string { return &p.Reason }, true},
	{"key", func(p *ledger.Payment) *string { return (*string)(&p.Key) }, false},
	{"scheme", func(p *ledger.Payment) *string { return &p.Scheme }, false},
	{"network", func(p *ledger.Payment) *string { return &p.Network }, false},
	{"asset", func(p *ledger.Payment) *string { return &p.Asset }, false},
	{"pay_to", func(p *ledger.Payment) *string { return &p.PayTo }, false},
	{"method", func(p *ledger.Payment) *string { return &p.Method }, false},
	{"host", func(p *ledger.Payment) *string { return &p.Host }, false},
	{"client", func(p *ledger.Payment) *string { return &p.Client }, false},
	{"identifier", func(p *ledger.Payment) *string { return &p.Identifier }, false},
	{"line", func(p *ledger.Payment) *string { return &p.Line }, false},
	{"body", func(p *ledger.Payment) *string { return &p.Body }, true},
}

// scan returns where a row of the columns in selected goes, and what makes a
// record of it afterwards.
func (r *record) scan(more ...any) (to []any, done func()) {
	p := &r.payment
	var token pgtype.UUID
	var lease, validBefore, keep, fetchBy pgtype.Timestamptz
	var url []byte
	to = append(make([]any, 0, 40),
		&r.revision, &token, &p.Created, &p.Updated, &lease, &validBefore, &keep, &fetchBy,
		&p.Status, &p.Runs, &p.Ended, &p.Doubt, &p.Effects, &url, &p.Request, &p.Answer)
	for i := range texts {
		to = append(to, texts[i].of(p))
	}
	return append(to, more...), func() {
		p.ID = ledger.ID(p.Key)
		p.URL = string(url)
		p.Created, p.Updated = p.Created.UTC(), p.Updated.UTC()
		p.Lease, p.ValidBefore, p.Keep, p.FetchBy = instant(lease), instant(validBefore), instant(keep), instant(fetchBy)
		if token.Valid {
			r.token = ledger.Token(fmt.Sprintf("%x", token.Bytes))
		}
	}
}

// instant is the time that stands in a column; none is the zero time.
func instant(t pgtype.Timestamptz) time.Time {
	if !t.Valid {
		return time.Time{}
	}
	return t.Time.UTC()
}

func timestamp(t time.Time) pgtype.Timestamptz {
	return pgtype.Timestamptz{Time: t, Valid: !t.IsZero()}
}

// storable returns the payment as the database will give it back, and as the
// ledger's own. One that cannot be stored would spoil the batch for others.
func storable(p ledger.Payment) (ledger.Payment, error) {
	if clean(string(p.Key)) != string(p.Key) {
		return p, fmt.Errorf("%w: the key is not text", ledger.ErrInvalid)
	}
	for i := range texts {
		s := texts[i].of(&p)
		*s = clean(*s)
	}
	p.ValidBefore, p.Keep, p.FetchBy = storableTime(p.ValidBefore), storableTime(p.Keep), storableTime(p.FetchBy)
	p.Request = bytes.Clone(p.Request)
	return p, nil
}

// storableChange is the same for a change.
func storableChange(ch ledger.Change) ledger.Change {
	for _, s := range []*string{&ch.Facilitator, &ch.Transaction, &ch.Payer, &ch.Amount, &ch.Body} {
		*s = clean(*s)
	}
	ch.Request, ch.Answer = bytes.Clone(ch.Request), bytes.Clone(ch.Answer)
	return ch
}

// clean makes a string that PostgreSQL takes as text.
func clean(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	const unknown = "\uFFFD"
	return strings.ReplaceAll(strings.ToValidUTF8(s, unknown), "\x00", unknown)
}

// storableTime rounds up to what the database can tell apart, and into the years
// that it knows. Rounding down could forget a payment before its time.
func storableTime(t time.Time) time.Time {
	switch {
	case t.IsZero():
		return t
	case t.Year() > 9999:
		return time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	case t.Year() < 1:
		return time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC)
	}
	if short := t.Truncate(time.Microsecond); short.Before(t) {
		return short.Add(time.Microsecond)
	}
	return t
}

// maxLease keeps what is added to a time within the years that the database
// knows.
const maxLease = 100 * 365 * 24 * time.Hour

func micros(lease time.Duration) int64 {
	return int64((min(lease, maxLease) + time.Microsecond - 1) / time.Microsecond)
}

// own is a copy for the caller.
func own(p ledger.Payment) ledger.Payment {
	p.Request, p.Answer = bytes.Clone(p.Request), bytes.Clone(p.Answer)
	return p
}

// ownTaken is an error of the rules for the caller.
func ownTaken(err error) error {
	if taken, ok := errors.AsType[*ledger.TakenError](err); ok {
		return &ledger.TakenError{Payment: own(taken.Payment)}
	}
	return err
}
