package purchase

import (
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/request"
)

// That a payment comes from the network of its purchase proves little where all
// clients seem to come from one: behind a proxy or a CDN that Caddy does not know.

const warnEvery = time.Hour

// noteNetwork warns of a client network that proves little.
func (p *Purchase) noteNetwork(r *http.Request) {
	addr, _ := request.ClientAddress(r)
	private := addr.IsValid() && (addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast())
	forwarded := len(r.Header["X-Forwarded-For"]) > 0 || len(r.Header["Forwarded"]) > 0 || len(r.Header["Cf-Connecting-Ip"]) > 0
	switch {
	case private && forwarded && !request.IsTrusted(r):
		p.desk.warnOfNetwork("payments come through a proxy that Caddy does not trust, so all payers seem to be in one network; name the proxy in `servers { trusted_proxies … }`", p.ask.Client)
	case p.desk.Settler.Admission.IsShared(p.ask.Client, p.signed.auth.Payer, p.desk.Now()):
		p.desk.warnOfNetwork("many payers come from one client network: if that is a CDN or a proxy, name it in `servers { trusted_proxies … }`, or it proves little who fetches what was paid for", p.ask.Client)
	}
}

func (d *Desk) warnOfNetwork(text, network string) {
	now := d.Now().Unix()
	if last := d.warned.Load(); now-last >= int64(warnEvery/time.Second) && d.warned.CompareAndSwap(last, now) {
		d.Logger.Warn(text, zap.String("network", network))
	}
}
