package purchase

import (
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/internal/settlement"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Who waits for somebody waits longer than that one does, from the payer's side
// to the chain's.
func TestTimesAreInOrder(t *testing.T) {
	const clients = 25 * time.Second // the shortest that common clients wait
	for _, c := range []struct {
		name            string
		shorter, longer time.Duration
	}{
		{"a payer is answered before the client gives up", answerWithin, clients},
		{"an authorization lives while its payer waits", answerWithin, minLife},
		{"an authorization lives when it is asked for", minLife, offer.MaxTimeout},
		{"what is offered is taken", offer.MaxTimeout, maxLife},
		{"a settlement goes on after its payer was answered", answerWithin, settlement.Within},
		{"a settlement can end before its authorization does", settlement.Within, offer.MaxTimeout},
		{"who is slow with a body is let go before the claim would be", delivery.UploadGrace, ledger.LeaseFor},
	} {
		if c.shorter >= c.longer {
			t.Errorf("%s: %s is not below %s", c.name, c.shorter, c.longer)
		}
	}
}
