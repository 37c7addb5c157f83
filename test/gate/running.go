package gate

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	paywall "github.com/caddy-paywall/caddy-paywall"
)

// Handlers are the paywall blocks of the running config.
func Handlers(t testing.TB) []*paywall.Handler {
	t.Helper()
	found := running()
	if len(found) == 0 {
		t.Fatal("no paywall block is running")
	}
	return found
}

// running are the paywall blocks of the running config, if there is one.
func running() (found []*paywall.Handler) {
	app, err := caddy.ActiveContext().AppIfConfigured("http")
	if err != nil {
		return nil
	}
	var walk func(caddyhttp.RouteList)
	walk = func(routes caddyhttp.RouteList) {
		for _, route := range routes {
			for _, h := range route.Handlers {
				switch h := h.(type) {
				case *paywall.Handler:
					found = append(found, h)
				case *caddyhttp.Subroute:
					walk(h.Routes)
				}
			}
		}
	}
	for _, s := range app.(*caddyhttp.App).Servers {
		walk(s.Routes)
	}
	return found
}

// Clock lets the gates of the running config be ahead of time.
func Clock(t testing.TB) (advance func(time.Duration)) {
	t.Helper()
	var ahead atomic.Int64
	for _, g := range Handlers(t) {
		g.ForTest().Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}
	return func(d time.Duration) { ahead.Add(int64(d)) }
}

// Unsettled is how many payments are, in the running config.
func Unsettled() int {
	found := running()
	if len(found) == 0 {
		return 0
	}
	return found[0].ForTest().Settler.Admission.Unsettled.Count()
}

// ForgetPayers forgets how all payers and networks fared, whose bounds hold over
// reloads: all tests come from one network.
func ForgetPayers() {
	if found := running(); len(found) > 0 {
		found[0].ForTest().Settler.Admission.ForTest().Forget()
	}
}

// SetMost sets how many payments may be unsettled: in all, of them for trusted payers
// alone, of one payer, and from one network.
func SetMost(t testing.TB, all, kept, of, from int) (restore func()) {
	t.Helper()
	return Handlers(t)[0].ForTest().Settler.Admission.ForTest().SetMost(all, kept, of, from)
}

// LookAtBlocks makes it time for the next look at all blocks that are watched.
func LookAtBlocks() {
	if found := running(); len(found) > 0 {
		found[0].ForTest().Settler.Blocks.ForTest().LookNow()
	}
}

// Series reads our metrics, by name and label.
func Series(t testing.TB) map[string]float64 {
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
