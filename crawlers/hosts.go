package crawlers

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-paywall/caddy-paywall/crawlers/recent"
)

const (
	lookupWithin = 2 * time.Second
	maxHosts     = 8 // names of one address that are looked at
	maxLookups   = 64
	maxLookups1  = 8 // for one network, so that a stranger cannot have all

	hostsKept   = 10_000 // addresses of which the names are remembered at least
	confirmedIs = 24 * time.Hour
	namelessIs  = time.Hour
	unsureIs    = 30 * time.Second // after a time-out
	roomAgain   = 20 * time.Millisecond
)

// hosts knows the names of addresses, as far as who owns the name agrees
// (forward-confirmed reverse DNS): the owner of an address can give it any name.
type hosts struct {
	resolver *net.Resolver
	life     context.Context
	wanted   func(name string) bool // which names are worth a question
	known    *recent.Map[netip.Addr, host]

	mu    sync.Mutex
	under map[netip.Addr]chan struct{} // closed when the lookup has ended
	nets  map[netip.Prefix]int         // lookups under way
}

type host struct {
	names []string
	until time.Time
}

func newHosts(life context.Context, resolver *net.Resolver, wanted func(string) bool) *hosts {
	return &hosts{
		resolver: resolver, life: life, wanted: wanted, known: recent.NewMap[netip.Addr, host](hostsKept),
		under: map[netip.Addr]chan struct{}{}, nets: map[netip.Prefix]int{},
	}
}

// names are the confirmed names of an address. It waits no longer than the context; a
// lookup goes on, and the next request finds what it has found.
func (h *hosts) names(ctx context.Context, a netip.Addr) []string {
	if known, ok := h.known.Get(a); ok && time.Now().Before(known.until) {
		return known.names
	}
	ended := h.lookUp(a)
	for ended == nil { // a crawler may come from many addresses at once
		if !sleep(ctx, roomAgain) {
			return nil
		}
		ended = h.lookUp(a)
	}
	select {
	case <-ended:
		known, _ := h.known.Get(a)
		return known.names
	case <-ctx.Done():
		return nil
	}
}

// noWait is closed.
var noWait = func() <-chan struct{} {
	closed := make(chan struct{})
	close(closed)
	return closed
}()

// lookUp begins to look an address up, or finds that it is under way. It returns nil if
// there are too many.
func (h *hosts) lookUp(a netip.Addr) <-chan struct{} {
	network, err := a.Prefix([2]int{24, 48}[versionOf(a)])
	h.mu.Lock()
	defer h.mu.Unlock()
	if under := h.under[a]; under != nil {
		return under
	}
	if known, ok := h.known.Get(a); ok && time.Now().Before(known.until) {
		return noWait // it has ended meanwhile
	}
	if err != nil || len(h.under) >= maxLookups || h.nets[network] >= maxLookups1 || h.life.Err() != nil {
		return nil
	}
	ended := make(chan struct{})
	h.under[a] = ended
	h.nets[network]++
	go func() {
		names, good := h.ask(a)
		h.known.Put(a, host{names: names, until: time.Now().Add(good)})
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.under, a)
		if h.nets[network]--; h.nets[network] == 0 {
			delete(h.nets, network)
		}
		close(ended)
	}()
	return ended
}

// ask asks the DNS, and says how long the answer is good.
func (h *hosts) ask(a netip.Addr) (names []string, good time.Duration) {
	ctx, cancel := context.WithTimeout(h.life, lookupWithin)
	defer cancel()
	said, err := h.resolver.LookupAddr(ctx, a.String())
	unsure := isUnsure(err)
	for _, name := range said[:min(len(said), maxHosts)] {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if !isDomain(name) || !h.wanted(name) {
			continue
		}
		addrs, err := h.resolver.LookupNetIP(ctx, "ip", name+".")
		unsure = unsure || isUnsure(err)
		if slices.ContainsFunc(addrs, func(of netip.Addr) bool { return of.Unmap() == a }) {
			names = append(names, name)
		}
	}
	switch {
	case len(names) > 0:
		return names, confirmedIs
	case unsure:
		return nil, unsureIs
	}
	return nil, namelessIs
}

// isUnsure says whether an error of the DNS is another one than that there is no name.
func isUnsure(err error) bool {
	var dns *net.DNSError
	return err != nil && (!errors.As(err, &dns) || !dns.IsNotFound)
}

// isUnder says whether a name is a domain or stands below it.
func isUnder(name, domain string) bool {
	rest, ok := strings.CutSuffix(name, domain)
	return ok && (rest == "" || rest[len(rest)-1] == '.')
}

// resolverAt asks one server, or the system's where none is named.
func resolverAt(address string) *net.Resolver {
	if address == "" {
		return net.DefaultResolver
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
}

// parseResolver reads the address of a DNS server.
func parseResolver(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(addr, 53).String(), nil
	}
	to, err := netip.ParseAddrPort(s)
	if err != nil || to.Port() == 0 {
		return "", errors.New("resolver: want the address of a DNS server, such as 127.0.0.1 or [::1]:5353")
	}
	return to.String(), nil
}
