package request

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// ClientAddress is the address that a request comes from, as far as Caddy knows, and
// the client has no say in it. What is none is a text.
func ClientAddress(r *http.Request) (netip.Addr, string) {
	kept, _ := caddyhttp.GetVar(r.Context(), addressKey).(*keptAddress)
	if kept == nil {
		kept = readAddress(r)
		if r.Context().Value(caddyhttp.VarsCtxKey) != nil {
			caddyhttp.SetVar(r.Context(), addressKey, kept)
		}
	}
	return kept.addr, kept.text
}

// addressKey is where a request keeps its client's address, since a header of many
// addresses takes time to read.
const addressKey = "paywall.client_address"

type keptAddress struct {
	addr netip.Addr
	text string
}

func readAddress(r *http.Request) *keptAddress {
	text, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if s, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && s != nil && IsTrusted(r) {
		text = lastHop(r, s)
	}
	if text == "" {
		text = r.RemoteAddr
	}
	if addr, ok := addressIn(text); ok {
		return &keptAddress{addr: addr}
	}
	return &keptAddress{text: text}
}

// addressIn reads an address as proxies write it down: with a port, in brackets or in
// quotes, with a zone.
func addressIn(text string) (netip.Addr, bool) {
	text = strings.Trim(strings.TrimSpace(text), `"`)
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	} else if strings.HasPrefix(text, "[") {
		text = strings.TrimSuffix(text[1:], "]")
	}
	addr, err := netip.ParseAddr(text)
	return addr.Unmap().WithZone(""), err == nil
}

// IsTrusted says whether a request comes from a trusted proxy.
func IsTrusted(r *http.Request) bool {
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	return trusted
}

// maxHops is how many trusted proxies are looked through for one request.
const maxHops = 32

// lastHop is the address that the trusted proxies in front of us vouch for: the
// rightmost one that is none of theirs. Caddy takes the leftmost one, which most proxies
// pass on as the client sent it, and with trusted_proxies_strict it skips what it cannot
// read: a client would choose its network, and with it whose bounds it uses up and whose
// purchases it fetches. What stands to the left of something that cannot be read proves
// nothing; then the network is the proxy's.
func lastHop(r *http.Request, s *caddyhttp.Server) string {
	hops := 0
	for _, name := range s.ClientIPHeaders {
		for _, value := range slices.Backward(r.Header.Values(name)) {
			for more := true; more; {
				comma := strings.LastIndexByte(value, ',')
				part := value[comma+1:]
				if more = comma >= 0; more {
					value = value[:comma]
				}
				addr, ok := addressIn(part)
				if hops++; !ok || hops > maxHops {
					return r.RemoteAddr
				}
				if !trusts(s, r, addr) {
					return addr.String()
				}
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
	return IsTrusted(caddyhttp.PrepareRequest(asked, caddy.NewEmptyReplacer(), nil, s))
}

// ClientNetwork is the network a request comes from: /24 or /64, since clients
// move within these between two tries.
func ClientNetwork(r *http.Request) string { return networkOf(r, 64) }

// ClientSite is for whom the bounds count: /24 or /48, since one customer of a provider
// has many networks of the sixth version.
func ClientSite(r *http.Request) string { return networkOf(r, 48) }

func networkOf(r *http.Request, size6 int) string {
	addr, text := ClientAddress(r)
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
