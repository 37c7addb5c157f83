package paywall

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// Who has tried a dead upstream keeps the others out no more, however that ended: he
// hung up, waited for hours, or did not pay in the end.
func TestWhoHasProbedKeepsNobodyOut(t *testing.T) {
	for name, ends := range map[string]func(*health, attempt, time.Time){
		"hangs up":     func(h *health, a attempt, now time.Time) { h.saw(a, statusClientGone, true, now) },
		"waits":        func(*health, attempt, time.Time) {},
		"does not pay": func(h *health, _ attempt, _ time.Time) { h.didNotTry() },
		"bad gateway":  func(h *health, a attempt, now time.Time) { h.saw(a, http.StatusBadGateway, true, now) },
	} {
		h, now, wallets := &health{}, time.Now(), 0
		attack := func(network string) (tried bool) {
			wallets++
			a := attempt{payer: fmt.Sprint(wallets), path: fmt.Sprint("/", wallets), network: network}
			if tried = h.mayTry(a, now); tried {
				ends(h, a, now)
			}
			return tried
		}
		for i := range deadAfter {
			h.saw(attempt{payer: fmt.Sprint("p", i), path: fmt.Sprint("/p", i), network: "one"}, http.StatusBadGateway, true, now)
		}
		now = now.Add(2 * probeEvery)
		for attack("two") && attack("two") { // all that it can get
			if wallets > 100 {
				break
			}
		}
		now = now.Add(probeEvery)
		attack("two")
		attack("one")
		if !h.mayTry(attempt{payer: "honest", path: "/x", network: "three"}, now) {
			t.Errorf("%s: a payer in another network may not try", name)
		}
		if h.mayTry(attempt{payer: "stranger", path: "/x", network: "four"}, now) && name != "does not pay" {
			t.Errorf("%s: two at once", name)
		}
		for i := range maxFailures { // a network for each
			attack(fmt.Sprint("other ", i))
		}
		for i := range 3 {
			if !h.mayTry(attempt{payer: fmt.Sprint("customer", i), path: "/x", network: "two", trusted: true}, now) {
				t.Errorf("%s: customer %d may not try", name, i)
			}
			now = now.Add(trustedEvery)
		}
		if h.mayTry(attempt{payer: "customer1", path: "/x", network: "two", trusted: true}, now) {
			t.Errorf("%s: a customer tries again and again", name)
		}
		h.saw(attempt{payer: "customer2", path: "/x"}, http.StatusOK, true, now)
		if !attack("one") {
			t.Errorf("%s: an answer does not forget", name)
		}
	}
}
