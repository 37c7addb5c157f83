package admission

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// Who has tried a dead upstream keeps the others out no more, however that ended: he
// hung up, waited for hours, or did not pay in the end.
func TestWhoHasProbedKeepsNobodyOut(t *testing.T) {
	for name, ends := range map[string]func(*Health, Attempt, time.Time){
		"hangs up":     func(h *Health, a Attempt, now time.Time) { h.Saw(a, ClientGone, true, now) },
		"waits":        func(*Health, Attempt, time.Time) {},
		"does not pay": func(h *Health, _ Attempt, _ time.Time) { h.DidNotTry() },
		"bad gateway":  func(h *Health, a Attempt, now time.Time) { h.Saw(a, http.StatusBadGateway, true, now) },
	} {
		h, now, wallets := &Health{}, time.Now(), 0
		attack := func(network string) (tried bool) {
			wallets++
			a := Attempt{Payer: fmt.Sprint(wallets), Path: fmt.Sprint("/", wallets), Network: network}
			if tried = h.MayTry(a, now); tried {
				ends(h, a, now)
			}
			return tried
		}
		for i := range deadAfter {
			h.Saw(Attempt{Payer: fmt.Sprint("p", i), Path: fmt.Sprint("/p", i), Network: "one"}, http.StatusBadGateway, true, now)
		}
		now = now.Add(2 * ProbeEvery)
		for attack("two") && attack("two") { // all that it can get
			if wallets > 100 {
				break
			}
		}
		now = now.Add(ProbeEvery)
		attack("two")
		attack("one")
		if !h.MayTry(Attempt{Payer: "honest", Path: "/x", Network: "three"}, now) {
			t.Errorf("%s: a payer in another network may not try", name)
		}
		if h.MayTry(Attempt{Payer: "stranger", Path: "/x", Network: "four"}, now) && name != "does not pay" {
			t.Errorf("%s: two at once", name)
		}
		for i := range maxFailures { // a network for each
			attack(fmt.Sprint("other ", i))
		}
		for i := range 3 {
			if !h.MayTry(Attempt{Payer: fmt.Sprint("customer", i), Path: "/x", Network: "two", Trusted: true}, now) {
				t.Errorf("%s: customer %d may not try", name, i)
			}
			now = now.Add(trustedEvery)
		}
		if h.MayTry(Attempt{Payer: "customer1", Path: "/x", Network: "two", Trusted: true}, now) {
			t.Errorf("%s: a customer tries again and again", name)
		}
		h.Saw(Attempt{Payer: "customer2", Path: "/x"}, http.StatusOK, true, now)
		if !attack("one") {
			t.Errorf("%s: an answer does not forget", name)
		}
	}
}
