package soak

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// The ways of a facilitator to misbehave.

// drops settles and hangs up.
func drops(_ http.ResponseWriter, _ *http.Request, inner func() facilitator.Settlement) {
	inner()
	panic(http.ErrAbortHandler)
}

// ignores hangs up before it settles.
func ignores(http.ResponseWriter, *http.Request, func() facilitator.Settlement) {
	panic(http.ErrAbortHandler)
}

// fails settles and answers 500.
func fails(w http.ResponseWriter, _ *http.Request, inner func() facilitator.Settlement) {
	inner()
	http.Error(w, "oh no", http.StatusInternalServerError)
}

// pends starts to settle and says that it is not done.
func pends(w http.ResponseWriter, r *http.Request, inner func() facilitator.Settlement) {
	go inner()
	_, _ = w.Write([]byte(`{"success":false,"errorReason":"settlement_pending","transaction":"","network":"eip155:84532"}`))
}

// twice answers two times.
func twice(w http.ResponseWriter, r *http.Request, inner func() facilitator.Settlement) {
	well(w, r, inner)
	well(w, r, inner)
}

// silent never answers, and does nothing.
func silent(_ http.ResponseWriter, r *http.Request, _ func() facilitator.Settlement) {
	<-r.Context().Done()
}

// mute settles and never says so.
func mute(_ http.ResponseWriter, r *http.Request, inner func() facilitator.Settlement) {
	inner()
	<-r.Context().Done()
}

// refuses says no, and has done nothing.
func refuses(w http.ResponseWriter, _ *http.Request, _ func() facilitator.Settlement) {
	_, _ = w.Write([]byte(`{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`))
}

// late settles, and says so later.
func late(by time.Duration) manners {
	return func(w http.ResponseWriter, r *http.Request, inner func() facilitator.Settlement) {
		s := inner()
		sleep(r.Context(), by)
		_, _ = w.Write(says(s))
	}
}

// TestFacilitator lets the facilitator misbehave, once to a few times for each
// purchase, with clients of every habit.
func TestFacilitator(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gateway(shop{})
	ways := map[string][]manners{
		"well": {}, "drops": {drops}, "drops twice": {drops, drops}, "drops thrice": {drops, drops, drops},
		"ignores": {ignores}, "ignores twice": {ignores, ignores}, "fails": {fails}, "fails thrice": {fails, fails, fails},
		"pends": {pends}, "pends thrice": {pends, pends, pends}, "answers twice": {twice, twice},
		"refuses": {refuses}, "refuses, then drops": {refuses, drops, drops}, "drops, then refuses": {drops, refuses, refuses},
		"late": {late(2 * time.Second)},
	}
	if long {
		ways["late beyond the payer's time"] = []manners{late(17 * time.Second)}
	}
	if full {
		ways["silent"] = []manners{silent}
		ways["mute"] = []manners{mute}
		ways["very late, twice"] = []manners{late(40 * time.Second), late(40 * time.Second)}
	}
	limit := 3 * time.Minute
	if full {
		limit = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var buyers sync.WaitGroup
	for name, calls := range ways {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			for kind, h := range map[string]habit{"stock": stock, "hasty": hasty, "careful": careful} {
				p := w.purchase(purchase{method: method, habit: h, script: &script{calls: calls}})
				p.tell("facilitator %s, client %s", name, kind)
				buyers.Go(func() { p.buy(ctx, client(nil), func() string { return g.plain }) })
			}
		}
	}
	buyers.Wait()
	w.audit()
	for _, p := range w.purchases {
		if n := len(w.up.given(p.path)); p.method == http.MethodPost && n > 1 {
			t.Errorf("%s was done %d times", p.path, n)
		}
	}
}

// lies says that it has settled, in a transaction that is not there or is
// another's, and has done nothing.
func lies(transaction string) manners {
	return func(w http.ResponseWriter, _ *http.Request, _ func() facilitator.Settlement) {
		_, _ = w.Write([]byte(`{"success":true,"transaction":"` + transaction + `","network":"eip155:84532"}`))
	}
}

// TestLiar: the facilitator says yes and the chain says no. Where it is not taken on
// its word there are no goods before the money has moved.
func TestLiar(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gateway(shop{confirm: true})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	origin := func() string { return g.plain }
	honest := w.purchase(purchase{method: http.MethodGet, habit: stock})
	if !honest.buy(ctx, client(nil), origin) {
		t.Fatal(honest.story)
	}
	var another string
	for _, tr := range w.transfers(t) {
		another = tr.tx.Hex()
	}
	var buyers sync.WaitGroup
	for name, tx := range map[string]string{"an invented transaction": "0x" + strings.Repeat("ab", 32), "another's": another} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			p := w.purchase(purchase{method: method, habit: stock, script: &script{calls: []manners{lies(tx)}}})
			p.tell("facilitator names %s", name)
			buyers.Go(func() { p.buy(ctx, client(nil), origin) })
		}
	}
	buyers.Wait()
	w.audit()
}
