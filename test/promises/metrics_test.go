package promises

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// Each outcome has a counter of its own, so that the one on call can tell them
// apart.
func TestOutcomesAreCounted(t *testing.T) {
	gate.ForgetPayers()
	w := gate.Prepare(t)
	s := w.WithLedger()
	s.Visible.Store(true)
	w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01\nprice /first/* $0.01 {\n settle first\n}")))
	junk := &mold{w: w}
	counted := func(want map[string]float64, do func()) {
		t.Helper()
		before := gate.Series(t)
		do()
		var got map[string]float64
		w.Until(func() bool { // what follows the last byte of an answer
			got = map[string]float64{}
			for name, v := range gate.Series(t) {
				if strings.Contains(name, "_total") && v != before[name] {
					got[name] = v - before[name]
				}
			}
			return maps.Equal(got, want)
		})
	}
	pay := func(path string) gate.Answer { return w.Pay(http.MethodGet, path) }
	const settled, refused = "settlements_total outcome=settled", "settlements_total outcome=refused"
	outcome := func(s string) string { return "payments_total outcome=" + s }
	counted(map[string]float64{"challenges_total": 2}, func() {
		w.Challenge(http.MethodGet, "/paid/x")
		w.Get("/paid/x")
		w.Get("/free")
	})
	counted(map[string]float64{outcome("malformed"): 1}, func() { w.Get("/paid/x", "X-PAYMENT", "junk") })
	counted(map[string]float64{"challenges_total": 1, outcome("rejected"): 1}, func() {
		w.Get("/first/x", "PAYMENT-SIGNATURE", junk.bend(1, func(s *gate.Payment) { s.Authorization["value"] = "1" }))
	})
	counted(map[string]float64{"challenges_total": 1, outcome("delivered"): 1, settled: 1}, func() { w.Expect(pay("/paid/x"), 200, "") })
	w.Upstream.On(gate.Says(404, ""))
	counted(map[string]float64{"challenges_total": 1, outcome("uncharged"): 1}, func() { w.Expect(pay("/paid/x"), 404, "") })
	counted(map[string]float64{"challenges_total": 1, outcome("undelivered"): 1, settled: 1}, func() { w.Expect(pay("/first/x"), 404, "") })
	w.Upstream.On(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	counted(map[string]float64{"challenges_total": 1, outcome("undelivered"): 1, settled: 1}, func() { w.Expect(pay("/first/x"), 502, "upstream_failed") })
	w.Upstream.On(nil)
	w.Facilitator.OnSettle(gate.RefusedSettle)
	counted(map[string]float64{"challenges_total": 1, outcome("refused"): 1, refused: 1}, func() { w.Expect(pay("/paid/x"), 402, "insufficient_funds") })
	w.Facilitator.OnSettle(nil)
	w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
	counted(map[string]float64{"challenges_total": 1, outcome("invalid"): 1}, func() { w.Expect(pay("/paid/x"), 402, "insufficient_funds") })
	w.Facilitator.OnVerify(nil)
	restore := gate.SetMost(t, 0, 0, 0, 1)
	counted(map[string]float64{"challenges_total": 1, outcome("limited"): 1}, func() { w.Expect(pay("/paid/x"), 429, "too_many_unsettled_payments") })
	restore()

	// In doubt: counted, and seen for as long as it lasts.
	w.Facilitator.OnSettle(gate.Says(500, ""))
	w.Expect(pay("/paid/doubt"), 503, "settlement_pending")
	w.Until(func() bool { now := gate.Series(t); return now["in_doubt"] == 1 && now["oldest_doubt_seconds"] > 0 })
	w.Facilitator.OnSettle(nil)
	w.ComesGood(func() bool { now := gate.Series(t); return now["in_doubt"] == 0 && now["oldest_doubt_seconds"] == 0 })

	// A facilitator that gives no answers.
	if up := gate.Series(t)["facilitator_up facilitator=fake"]; up != 1 {
		t.Errorf("facilitator_up %v", up)
	}
	var late []string
	for range 3 {
		late = append(late, w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t))
	}
	back := w.Facilitator.AnswersAll(gate.Says(503, ""))
	counted(map[string]float64{"closed_total": 1, outcome("unverified"): 3}, func() {
		for _, payment := range late {
			w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", payment), 503, "facilitator_unavailable")
		}
		w.Expect(w.Get("/paid/x"), 503, "facilitator_unavailable")
	})
	if up := gate.Series(t)["facilitator_up facilitator=fake"]; up != 0 {
		t.Errorf("facilitator_up %v", up)
	}
	back()
	w.ComesGood(func() bool { return gate.Series(t)["facilitator_up facilitator=fake"] == 1 })

	hold := gate.NewBarrier()
	t.Cleanup(hold.Release)
	w.Upstream.On(func(http.ResponseWriter, *http.Request) { hold.Pass() })
	go pay("/paid/slow")
	<-hold.Come
	if got := gate.Series(t)["unsettled"]; got != 1 {
		t.Errorf("unsettled %v", got)
	}
	hold.Release()
	w.Until(func() bool { return gate.Series(t)["unsettled"] == 0 })

	// What is owed is counted when the config is loaded, and now and then.
	w.Reload(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
	w.Until(func() bool { return gate.Series(t)["owed"] == 3 }) // the 404 and the 502 above, and the one that was in doubt
}

// No payer can make the metrics grow: what a request says is in no label.
func TestMetricsAreBounded(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01\notherwise refuse")
	outcomes := []string{
		"delivered", "expired", "invalid", "limited", "malformed", "moved", "pending", "reconciled_refused", "reconciled_settled", "redeemed", "refused", "rejected",
		"restored", "reverted", "settled", "transaction_reused", "uncharged", "undelivered", "unknown", "unrecorded", "unsent", "unverified",
	}
	known := func() {
		t.Helper()
		now := gate.Series(t)
		for name := range now {
			_, label, _ := strings.Cut(name, " ")
			key, value, _ := strings.Cut(label, "=")
			switch {
			case label == "", key == "facilitator" && value == "fake":
			case key == "outcome" && slices.Contains(outcomes, value):
			default:
				t.Errorf("unexpected series %q", name)
			}
		}
		if len(now) > 40 {
			t.Errorf("%d series", len(now))
		}
	}
	w.Facilitator.OnVerify(func(rw http.ResponseWriter, _ *http.Request) {
		gate.Says(200, fmt.Sprintf(`{"isValid":false,"invalidReason":"reason_%d"}`, time.Now().UnixNano()))(rw, nil)
	})
	junk := &mold{w: w}
	for i := range 100 {
		path := fmt.Sprintf("/paid/%%2e%%2e%%2f%d%s?x=%d", i, strings.Repeat("y", i), i)
		for _, method := range []string{http.MethodGet, "METHOD" + fmt.Sprint(i), http.MethodOptions} {
			w.Do(w.Request(method, path, "X-PAYMENT", fmt.Sprint(i), "Origin", "https://"+fmt.Sprint(i)))
		}
		w.Get("/paid/x", "PAYMENT-SIGNATURE", junk.bend(i, func(*gate.Payment) {}))
		w.Get(fmt.Sprintf("/other/%d", i), "User-Agent", fmt.Sprint(i))
	}
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), 402, "")
	known()
}
