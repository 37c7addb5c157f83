package paywall_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// series reads our metrics, by name and label.
func series(t *testing.T) map[string]float64 {
	t.Helper()
	ctx := caddy.ActiveContext()
	families, err := ctx.GetMetricsRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "caddy_paywall_") {
			continue
		}
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), "caddy_paywall_")
			for _, l := range m.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}

// Each outcome has a counter of its own, so that the one on call can tell them
// apart.
func TestOutcomesAreCounted(t *testing.T) {
	forgetPayers()
	w := prepareWorld(t)
	s := w.withScript()
	s.visible.Store(true)
	w.load(onScript(w.caddyfile("price /paid/* $0.01\nprice /first/* $0.01 {\n settle first\n}")))
	junk := &mold{w: w}
	counted := func(want map[string]float64, do func()) {
		t.Helper()
		before := series(t)
		do()
		var got map[string]float64
		w.until(func() bool { // what follows the last byte of an answer
			got = map[string]float64{}
			for name, v := range series(t) {
				if strings.Contains(name, "_total") && v != before[name] {
					got[name] = v - before[name]
				}
			}
			return maps.Equal(got, want)
		})
	}
	pay := func(path string) answerOf { return w.pay(http.MethodGet, path) }
	const settled, refused = "settlements_total outcome=settled", "settlements_total outcome=refused"
	outcome := func(s string) string { return "payments_total outcome=" + s }
	counted(map[string]float64{"challenges_total": 2}, func() {
		w.challenge(http.MethodGet, "/paid/x")
		w.get("/paid/x")
		w.get("/free")
	})
	counted(map[string]float64{outcome("malformed"): 1}, func() { w.get("/paid/x", "X-PAYMENT", "junk") })
	counted(map[string]float64{"challenges_total": 1, outcome("rejected"): 1}, func() {
		w.get("/first/x", "PAYMENT-SIGNATURE", junk.bend(1, func(s *signed) { s.authorization["value"] = "1" }))
	})
	counted(map[string]float64{"challenges_total": 1, outcome("delivered"): 1, settled: 1}, func() { w.expect(pay("/paid/x"), 200, "") })
	w.up.on(says(404, ""))
	counted(map[string]float64{"challenges_total": 1, outcome("uncharged"): 1}, func() { w.expect(pay("/paid/x"), 404, "") })
	counted(map[string]float64{"challenges_total": 1, outcome("undelivered"): 1, settled: 1}, func() { w.expect(pay("/first/x"), 404, "") })
	w.up.on(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	counted(map[string]float64{"challenges_total": 1, outcome("undelivered"): 1, settled: 1}, func() { w.expect(pay("/first/x"), 502, "upstream_failed") })
	w.up.on(nil)
	w.fac.onSettle(refusedSettle)
	counted(map[string]float64{"challenges_total": 1, outcome("refused"): 1, refused: 1}, func() { w.expect(pay("/paid/x"), 402, "insufficient_funds") })
	w.fac.onSettle(nil)
	w.fac.onVerify(says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
	counted(map[string]float64{"challenges_total": 1, outcome("invalid"): 1}, func() { w.expect(pay("/paid/x"), 402, "insufficient_funds") })
	w.fac.onVerify(nil)
	restore := setMost(t, 0, 0, 0, 1)
	counted(map[string]float64{"challenges_total": 1, outcome("limited"): 1}, func() { w.expect(pay("/paid/x"), 429, "too_many_unsettled_payments") })
	restore()

	// In doubt: counted, and seen for as long as it lasts.
	w.fac.onSettle(says(500, ""))
	w.expect(pay("/paid/doubt"), 503, "settlement_pending")
	w.until(func() bool { now := series(t); return now["in_doubt"] == 1 && now["oldest_doubt_seconds"] > 0 })
	w.fac.onSettle(nil)
	w.comesGood(func() bool { now := series(t); return now["in_doubt"] == 0 && now["oldest_doubt_seconds"] == 0 })

	// A facilitator that gives no answers.
	if up := series(t)["facilitator_up facilitator=fake"]; up != 1 {
		t.Errorf("facilitator_up %v", up)
	}
	var late []string
	for range 3 {
		late = append(late, w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t))
	}
	back := w.answersAll(says(503, ""))
	counted(map[string]float64{"closed_total": 1, outcome("unverified"): 3}, func() {
		for _, payment := range late {
			w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", payment), 503, "facilitator_unavailable")
		}
		w.expect(w.get("/paid/x"), 503, "facilitator_unavailable")
	})
	if up := series(t)["facilitator_up facilitator=fake"]; up != 0 {
		t.Errorf("facilitator_up %v", up)
	}
	back()
	w.comesGood(func() bool { return series(t)["facilitator_up facilitator=fake"] == 1 })

	hold := newGateOf()
	t.Cleanup(hold.release)
	w.up.on(func(http.ResponseWriter, *http.Request) { hold.pass() })
	go pay("/paid/slow")
	<-hold.come
	if got := series(t)["unsettled"]; got != 1 {
		t.Errorf("unsettled %v", got)
	}
	hold.release()
	w.until(func() bool { return series(t)["unsettled"] == 0 })

	// What is owed is counted when the config is loaded, and now and then.
	w.reload(onScript(w.caddyfile("price /paid/* $0.01")))
	w.until(func() bool { return series(t)["owed"] == 3 }) // the 404 and the 502 above, and the one that was in doubt
}

// No payer can make the metrics grow: what a request says is in no label.
func TestMetricsAreBounded(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01\notherwise refuse")
	outcomes := []string{
		"delivered", "expired", "invalid", "limited", "malformed", "moved", "pending", "reconciled_refused", "reconciled_settled", "redeemed", "refused", "rejected",
		"restored", "reverted", "settled", "transaction_reused", "uncharged", "undelivered", "unknown", "unrecorded", "unsent", "unverified",
	}
	known := func() {
		t.Helper()
		now := series(t)
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
	w.fac.onVerify(func(rw http.ResponseWriter, _ *http.Request) {
		says(200, fmt.Sprintf(`{"isValid":false,"invalidReason":"reason_%d"}`, time.Now().UnixNano()))(rw, nil)
	})
	junk := &mold{w: w}
	for i := range 100 {
		path := fmt.Sprintf("/paid/%%2e%%2e%%2f%d%s?x=%d", i, strings.Repeat("y", i), i)
		for _, method := range []string{http.MethodGet, "METHOD" + fmt.Sprint(i), http.MethodOptions} {
			w.do(w.request(method, path, "X-PAYMENT", fmt.Sprint(i), "Origin", "https://"+fmt.Sprint(i)))
		}
		w.get("/paid/x", "PAYMENT-SIGNATURE", junk.bend(i, func(*signed) {}))
		w.get(fmt.Sprintf("/other/%d", i), "User-Agent", fmt.Sprint(i))
	}
	w.expect(w.pay(http.MethodGet, "/paid/x"), 402, "")
	known()
}
