package purchase

import (
	"context"
	"errors"
	"net/http"

	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// hasBodyOf says whether this request has the body that a purchase was made with.
// Where the upstream must not begin before that is certain, the body is read ahead;
// one that is too long for that is compared at the status line, or for a copy of an
// answer read and forgotten.
func (p *Purchase) hasBodyOf(ctx context.Context, row ledger.Payment) (delivery.Likeness, *Refusal) {
	p.result.mustBe = ""
	if refused := p.readLimited(); refused != nil {
		return delivery.Unclear, refused
	}
	if row.Body == "" && p.acted(row) {
		return delivery.Unclear, nil
	}
	alike, err := p.ask.Body.Like(ctx, row.Body, p.desk.UploadGrace)
	switch {
	case err == nil:
		return alike, nil
	case errors.Is(err, delivery.ErrTooLong) && p.acted(row):
		if digest, _ := p.ask.Body.Drain(row.Body); digest == row.Body {
			return delivery.Same, nil
		}
		// It is gone, and cannot be sold any more.
		return delivery.Unclear, p.unconfirmed(row)
	case errors.Is(err, delivery.ErrTooLong):
		if !row.Effects { // else the upstream acts before anybody can tell, and this pays for it, once
			p.result.mustBe = row.Body
		}
		return delivery.Same, nil
	}
	return delivery.Unclear, bodyTooSlow()
}

// readLimited reads a body ahead that nobody could read later, and refuses one that is
// longer than the site takes while nothing is paid for it.
func (p *Purchase) readLimited() *Refusal {
	err := p.ask.Body.ReadLimited()
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &Refusal{Status: http.StatusRequestEntityTooLarge, Code: codeBodyTooLarge}
	}
	return bodyTooSlow()
}

// bodySoFar is what the ledger is told of the request's body while the money moves: once
// the upstream has answered, that it is not known, if it is not; "" leaves what the ledger
// has from an earlier request.
func (p *Purchase) bodySoFar(ctx context.Context) string {
	switch {
	case p.result.status != 0:
		return p.ask.Body.Record(context.WithoutCancel(ctx), p.ask.Method)
	case p.hold.Payment.Status != 0:
		return ""
	}
	return p.readBody()
}

// readBody is the digest of the request's body, or "" while it is not known, and where
// the ledger has the answer to another one.
func (p *Purchase) readBody() string {
	if delivery.HasCopy(p.hold.Payment) {
		return ""
	}
	digest, _ := p.ask.Body.Digest()
	return digest
}

// knownBody is readBody for a settlement, which may outlive the request.
func (p *Purchase) knownBody() func() string {
	earlier := p.result.status == 0 && p.hold.Payment.Status != 0 // what the ledger has is of an earlier request
	if earlier || delivery.HasCopy(p.hold.Payment) {
		return func() string { return "" }
	}
	body := p.ask.Body
	return func() string {
		digest, _ := body.Digest()
		return digest
	}
}

// readOn reads a body to its end that the upstream did not want, so that it is known
// what was bought.
func (p *Purchase) readOn(ctx context.Context) {
	if _, ok := p.ask.Body.Digest(); ok || p.ask.Acts && !p.isGoods(p.result.status) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, delivery.LookWithin)
	defer cancel()
	_ = p.ask.Body.ReadAhead(ctx)
}
