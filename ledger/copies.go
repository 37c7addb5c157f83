package ledger

import (
	"bytes"
	"errors"
	"strings"
)

// Clone returns a copy that shares nothing with p that anybody can change. Stores
// give one to callers, and take one from them.
func (p Payment) Clone() Payment {
	p.Request, p.Answer = bytes.Clone(p.Request), bytes.Clone(p.Answer)
	return p
}

// Copy returns the copy of a row that a List gives.
func (f Filter) Copy(p Payment) Payment {
	if f.Brief {
		p.Request, p.Answer = nil, p.Answer[:min(len(p.Answer), BriefAnswer)]
	}
	return p.Clone()
}

// Pack returns a copy with all strings in one piece of memory. They come from
// requests: a store that kept a few bytes of a header would keep the whole header.
func (p Payment) Pack() Payment {
	p = p.Clone()
	fields := [...]*string{
		(*string)(&p.Key), &p.ID, &p.Scheme, &p.Network, &p.Asset, &p.PayTo, &p.Payer, &p.Amount,
		&p.Method, &p.Host, &p.URL, &p.Line, &p.Client, &p.Identifier, &p.Body, &p.Facilitator,
	}
	n := 0
	for _, f := range fields {
		n += len(*f)
	}
	var b strings.Builder
	b.Grow(n)
	for _, f := range fields {
		b.WriteString(*f)
	}
	packed := b.String()
	for _, f := range fields {
		*f, packed = packed[:len(*f)], packed[len(*f):]
	}
	return p
}

// Clone returns a copy that shares nothing with ch, neither bytes nor the memory of
// its strings.
func (ch Change) Clone() Change {
	ch.Request, ch.Answer = bytes.Clone(ch.Request), bytes.Clone(ch.Answer)
	for _, s := range []*string{&ch.Facilitator, &ch.Transaction, &ch.Payer, &ch.Amount, &ch.Reason, &ch.Body} {
		*s = strings.Clone(*s)
	}
	return ch
}

// CloneTaken makes the row in a TakenError the caller's own; other errors stay as
// they are. The error of ApplyClaim and ApplyTake has the store's row.
func CloneTaken(err error) error {
	if taken, ok := errors.AsType[*TakenError](err); ok {
		taken.Payment = taken.Payment.Clone()
	}
	return err
}
