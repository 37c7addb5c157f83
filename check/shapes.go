package check

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// speaks records that the server speaks a version of HTTP.
func (w *wires) speaks(proto string) {
	if !w.spoke(proto) {
		w.spoken = append(w.spoken, proto)
	}
}

func (w *wires) spoke(proto string) bool { return slices.Contains(w.spoken, proto) }

// mayAnswer says whether the server is known to speak a version of HTTP, or says
// so.
func (w *wires) mayAnswer(proto string) bool {
	return proto == http1 || w.spoke(proto) || proto == http3Name && w.advertised
}

// hosts asks the same address for the path under other names, and without TLS:
// what the site sells may be had there.
func (c *checker) hosts(ctx context.Context, t Target) {
	hostname, port := t.URL.Hostname(), t.URL.Port()
	withPort := func(host string) string {
		if port == "" {
			return host
		}
		return net.JoinHostPort(host, port)
	}
	names := []string{withPort(strings.ToUpper(hostname)), "paywall-check.invalid", withPort("localhost"), withPort("127.0.0.1")}
	if _, err := netip.ParseAddr(hostname); err != nil && hostname != "localhost" {
		names = append(names, withPort(hostname+"."))
	}
	for _, name := range names {
		if name == t.URL.Host {
			continue
		}
		a := c.ask(t, http1)
		a.host, a.what = name, "for the host "+name
		r, err := c.send(ctx, t, a)
		if err != nil {
			continue
		}
		if goods(a, r) && !c.catchAll(ctx, t, r) {
			c.find(t, a, r, Warning, ruleHost, "the same address answers the path without a payment under another host name (%s); if it serves the same goods, they are open", amount(r))
		}
	}
	c.withoutTLS(ctx, t)
}

// upstreams asks the servers behind the paywall for the path. On this machine they
// answer, as they should.
func (c *checker) upstreams(ctx context.Context, t Target) {
	for _, origin := range t.Upstreams {
		u, err := url.Parse(origin)
		if err != nil {
			continue
		}
		if ip, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && ip.IsLoopback() {
			continue
		}
		around := t
		if c.wires[origin] == nil {
			c.wires[origin] = newWires(u, "", c.Insecure, c.Timeout) // Connect is for the gateway
		}
		u.Path, u.RawPath, u.RawQuery = t.URL.Path, t.URL.RawPath, t.URL.RawQuery
		around.URL = u
		a := c.ask(around, http1)
		a.host, a.what = t.URL.Host, "from the upstream itself"
		r, err := c.send(ctx, around, a)
		if err == nil && goods(a, r) {
			c.find(t, a, r, Warning, ruleUpstream, "the upstream %s answers the path by itself to who can reach it, as this machine can (%s): let it listen for Caddy only", u.Host, amount(r))
		}
	}
}

// withoutTLS asks for the path without TLS.
func (c *checker) withoutTLS(ctx context.Context, t Target) {
	if t.URL.Scheme != "https" {
		if ip, err := netip.ParseAddr(t.URL.Hostname()); t.URL.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) {
			c.find(t, c.ask(t, http1), nil, Warning, ruleHTTP, "the price and the payment go over the network in the clear: use https")
		}
		return
	}
	if port := t.URL.Port(); port != "" && port != "443" || c.Connect != "" {
		return // nobody knows where it would be
	}
	plain := t
	u := *t.URL
	u.Scheme, u.Host = "http", t.URL.Hostname()
	plain.URL = &u
	a := c.ask(plain, http1)
	a.what = "without TLS"
	r, err := c.send(ctx, plain, a)
	if err != nil {
		return
	}
	switch {
	case goods(a, r):
		c.find(t, a, r, Open, ruleServed, "served without TLS and without a payment (%s)", amount(r))
	case r.status == http.StatusPaymentRequired:
		c.find(t, a, r, Warning, ruleHTTP, "sold without TLS too: the price and the payment go over the network in the clear; redirect to https")
	}
}

// preflight asks as a browser does before it pays.
func (c *checker) preflight(ctx context.Context, t Target) {
	a := c.ask(t, http1)
	a.method, a.what = http.MethodOptions, "as a CORS preflight"
	a.header = http.Header{
		"Origin": {"https://paywall-check.example"}, "Access-Control-Request-Method": {t.method()},
		"Access-Control-Request-Headers": {"payment-signature,x-payment,access-control-expose-headers"},
	}
	r, err := c.send(ctx, t, a)
	if err != nil {
		return
	}
	allowed := strings.ToLower(strings.Join(r.header.Values("Access-Control-Allow-Headers"), ","))
	switch {
	case len(r.body) > 0 && r.status >= 200 && r.status < 300:
		c.find(t, a, r, Open, ruleServed, "a preflight carries content without a payment (%s)", amount(r))
	case r.status < 200 || r.status >= 300 || r.header.Get("Access-Control-Allow-Origin") == "":
		c.find(t, a, r, Warning, rulePreflight, "browsers on other sites cannot pay: the preflight is not answered with permission")
	case !strings.Contains(allowed, "payment-signature") || !strings.Contains(allowed, "access-control-expose-headers"):
		c.find(t, a, r, Warning, rulePreflight, "browsers on other sites cannot pay: the preflight does not allow PAYMENT-SIGNATURE and Access-Control-Expose-Headers, which clients send")
	}
}

// amount says how much came.
func amount(r *answer) string {
	if r.truncated {
		return fmt.Sprintf("more than %d bytes", len(r.body))
	}
	return fmt.Sprintf("%d, %d bytes", r.status, len(r.body))
}

// clip shortens a text that came from elsewhere.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
