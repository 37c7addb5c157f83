package paywall

import (
	"hash/maphash"
	"math/bits"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// clientAddress is the address that a request comes from, as far as Caddy knows, and
// the client has no say in it.
func clientAddress(r *http.Request) (netip.Addr, string) {
	text, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if s, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && s != nil && s.TrustedProxiesStrict <= 0 && isTrusted(r) {
		text = lastHop(r, s)
	}
	if text == "" {
		text = r.RemoteAddr
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		ap, err := netip.ParseAddrPort(text)
		if err != nil {
			return netip.Addr{}, text
		}
		addr = ap.Addr()
	}
	return addr.Unmap().WithZone(""), ""
}

// isTrusted says whether a request comes from a trusted proxy.
func isTrusted(r *http.Request) bool {
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	return trusted
}

// maxHops is how many trusted proxies are looked through for one request.
const maxHops = 32

// lastHop is the address that the trusted proxies in front of us vouch for: the
// rightmost one that is none of theirs, as Caddy takes it with trusted_proxies_strict.
// Without that word it takes the leftmost one, which most proxies pass on as the client
// sent it: a client would choose its network, and with it whose bounds it uses up and
// whose purchases it fetches.
func lastHop(r *http.Request, s *caddyhttp.Server) string {
	hops := 0
	for _, name := range s.ClientIPHeaders {
		for _, part := range slices.Backward(strings.Split(strings.Join(r.Header.Values(name), ","), ",")) {
			if host, _, err := net.SplitHostPort(part); err == nil {
				part = host
			}
			host, _, _ := strings.Cut(strings.TrimSpace(part), "%")
			addr, err := netip.ParseAddr(host)
			if err != nil {
				continue
			}
			if hops++; hops > maxHops {
				return r.RemoteAddr
			}
			if addr = addr.Unmap(); !trusts(s, r, addr) {
				return addr.String()
			}
		}
	}
	return r.RemoteAddr
}

// trusts asks Caddy whether an address is one of the server's trusted proxies: whether
// it would trust a request that comes from there.
func trusts(s *caddyhttp.Server, r *http.Request, addr netip.Addr) bool {
	asked := r.WithContext(r.Context())
	asked.RemoteAddr, asked.Header = netip.AddrPortFrom(addr, 0).String(), nil
	return isTrusted(caddyhttp.PrepareRequest(asked, caddy.NewEmptyReplacer(), nil, s))
}

// clientNetwork is the network a request comes from: /24 or /64, since clients
// move within these between two tries.
func clientNetwork(r *http.Request) string { return networkOf(r, 64) }

// clientSite is for whom the bounds count: /24 or /48, since one customer of a provider
// has many networks of the sixth version.
func clientSite(r *http.Request) string { return networkOf(r, 48) }

func networkOf(r *http.Request, size6 int) string {
	addr, text := clientAddress(r)
	if !addr.IsValid() {
		return text
	}
	size := size6
	if addr.Is4() {
		size = 24
	}
	prefix, err := addr.Prefix(size)
	if err != nil {
		return addr.String()
	}
	return prefix.String()
}

// That a payment comes from the network of its purchase proves little where all
// clients seem to come from one: behind a proxy or a CDN that Caddy does not know.

const (
	// manyPayers is how many of the 64 marks of a network must be set before it seems
	// to be shared: that takes some ninety payers in an hour or two.
	manyPayers = 48
	warnEvery  = time.Hour
)

var (
	// payersSeen has for each network which payers were seen there, a mark for one in
	// 64.
	payersSeen = &recent[uint64]{}
	markSeed   = maphash.MakeSeed()
)

// isShared notes a payer, and says whether the network now seems to be that of many.
func isShared(network, payer string, now time.Time) (many bool) {
	payersSeen.update(network, now, func(marks *uint64) {
		*marks |= 1 << (maphash.String(markSeed, payer) % 64)
		many = bits.OnesCount64(*marks) >= manyPayers
	})
	return many
}

// noteNetwork warns of a client network that proves little.
func (p *purchase) noteNetwork(r *http.Request) {
	addr, _ := clientAddress(r)
	private := addr.IsValid() && (addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast())
	forwarded := len(r.Header["X-Forwarded-For"]) > 0 || len(r.Header["Forwarded"]) > 0 || len(r.Header["Cf-Connecting-Ip"]) > 0
	switch {
	case private && forwarded && !isTrusted(r):
		p.h.warnOfNetwork("payments come through a proxy that Caddy does not trust, so all payers seem to be in one network; name the proxy in `servers { trusted_proxies … }`", p.client)
	case isShared(p.client, p.auth.Payer, p.h.now()):
		p.h.warnOfNetwork("many payers come from one client network: if that is a CDN or a proxy, name it in `servers { trusted_proxies … }`, or it proves little who fetches what was paid for", p.client)
	}
}

func (h *Handler) warnOfNetwork(text, network string) {
	now := h.now().Unix()
	if last := h.warned.Load(); now-last >= int64(warnEvery/time.Second) && h.warned.CompareAndSwap(last, now) {
		h.logger.Warn(text, zap.String("network", network))
	}
}
