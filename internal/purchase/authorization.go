package purchase

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// authorization is what the payer signed, as far as we can read it. Its Payer is the one
// name under which anything is remembered or owed; where the payment alone does not say
// who pays, a facilitator does: see paidBy.
type authorization struct {
	x402.Authorization
	// opaque: the chain family has no rule for telling authorizations apart, so
	// Key only catches identical copies, and the transaction of the settlement
	// buys once.
	opaque bool
}

// readAuthorization decodes what was signed. A family without a rule passes
// only where the money moves first.
func readAuthorization(p *x402.Payment, r x402.Requirement, first bool) (authorization, error) {
	a, err := p.Authorization(r)
	if err == nil {
		return authorization{Authorization: a}, nil
	}
	refused, ok := errors.AsType[*x402.Error](err)
	if !ok || refused.Code != x402.CodeUnsupportedAuthorization || !first || x402.TellsApart(r.Network) {
		return authorization{}, err
	}
	canonical := slices.Clone(p.Payload)
	if err := canonical.Canonicalize(); err != nil {
		return authorization{}, &x402.Error{Code: x402.CodePaymentMalformed, Err: err}
	}
	sum := sha256.Sum256(canonical)
	a.Key = "opaque:" + r.Network + ":" + hex.EncodeToString(sum[:])
	return authorization{Authorization: a, opaque: true}, nil
}

// check compares what was signed with the requirement and the clock.
func (a authorization) check(r x402.Requirement, now time.Time) error {
	if a.opaque {
		return nil // only the facilitator can read it
	}
	return a.Check(r, now, minLife, maxLife)
}

// validBefore is when the authorization ends; zero if the scheme has no such
// time.
func (a authorization) validBefore() time.Time {
	if a.ValidBefore == 0 {
		return time.Time{}
	}
	return time.Unix(a.ValidBefore, 0)
}
