package purchase

import (
	"crypto/sha256"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// verdictFor is how long a facilitator's word about a payment is good for the same
// payment: who sends one again and again costs the facilitator nothing.
const verdictFor = 3 * time.Second

// verdicts remembers what facilitators have just said of payments. Two that fall
// together take each other's place.
type verdicts struct {
	slots [1 << 10]atomic.Pointer[heard]
}

// heard is what a facilitator said of one payment, and when.
type heard struct {
	of      verdictKey
	verdict facilitator.Verdict
	by      string
	at      time.Time
}

// verdictKey is what a verdict is about: what was signed, how, and for what.
type verdictKey [sha256.Size]byte

// verdictKey names what the facilitator would be asked. Where our own check has
// proven the signature, its spelling makes no difference.
func (p *Purchase) verdictKey() (key verdictKey) {
	r, a := &p.signed.request.Requirement, &p.signed.auth
	about := fmt.Sprintf("%q %q %q %q %q %q %q %q %s %d %d %q %q %q", r.Scheme, r.Network, r.Amount, r.Asset, r.PayTo, r.Extra,
		p.signed.payment.Extensions, a.Key, a.Value.Dec(), a.ValidAfter, a.ValidBefore, a.To, a.Spender, a.Facilitator)
	if !p.signed.proven {
		about += string(p.signed.payment.Payload)
	}
	return sha256.Sum256([]byte(about))
}

func (v *verdicts) slot(key verdictKey) *atomic.Pointer[heard] {
	return &v.slots[(int(key[0])<<8|int(key[1]))%len(v.slots)]
}

// get returns a verdict that is still good.
func (v *verdicts) get(key verdictKey, now time.Time) *heard {
	h := v.slot(key).Load()
	if h == nil || h.of != key || now.Sub(h.at) >= verdictFor {
		return nil
	}
	return h
}

func (v *verdicts) put(h heard) { v.slot(h.of).Store(&h) }
