package check

import (
	"context"
	"net/http"
)

// disguises are headers with which a request may look like one that need not
// pay.
var disguises = []struct {
	what   string
	header http.Header
}{
	{"as a browser", http.Header{"User-Agent": {browser}, "Accept": {"text/html,*/*;q=0.8"}}},
	{"as a search engine", http.Header{"User-Agent": {"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}, "From": {"googlebot(at)googlebot.com"}}},
	{"for a range", http.Header{"Range": {"bytes=0-0"}}},
	{"if modified", http.Header{"If-None-Match": {"*"}, "If-Modified-Since": {"Mon, 01 Jan 2035 00:00:00 GMT"}}},
	{"only from a cache", http.Header{"Cache-Control": {"only-if-cached, max-stale=86400"}}},
	{"for a WebSocket", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"cGF5d2FsbC1jaGVjay0wMA=="}}},
	{"as if paid", http.Header{
		"Payment-Response": {"eyJzdWNjZXNzIjp0cnVlfQ=="}, "X-Payment-Response": {"eyJzdWNjZXNzIjp0cnVlfQ=="}, "X-Payment-Verified": {"true"}, "X-Paid": {"true"},
		"Paywall-Payment": {"x"}, "Paywall-Payer": {"x"}, "Paywall-Amount": {"1"}, "Paywall-Transaction": {"0x1"}, "Idempotency-Key": {"x"},
	}},
	{"as if from inside", http.Header{
		"X-Forwarded-For": {"127.0.0.1"}, "X-Real-Ip": {"127.0.0.1"}, "Client-Ip": {"127.0.0.1"}, "True-Client-Ip": {"127.0.0.1"},
		"Forwarded": {"for=127.0.0.1"}, "X-Forwarded-Host": {"localhost"}, "X-Forwarded-Prefix": {"/x"},
	}},
	{"with another URL", http.Header{"X-Original-Url": {"/"}, "X-Rewrite-Url": {"/"}, "X-Forwarded-Uri": {"/"}}},
}

const browser = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

// headers asks in disguise.
func (c *checker) headers(ctx context.Context, t Target) {
	for _, d := range disguises {
		a := c.ask(t, http1)
		a.header, a.what = d.header.Clone(), d.what
		r := c.askAndJudge(ctx, t, a)
		if d.what == "as a browser" && r != nil && r.status == http.StatusPaymentRequired {
			c.browserPage(ctx, t, a, r)
		}
	}
	c.hiddenURL(ctx, t)
	c.tunnel(ctx, t)
}

// tunnel asks, where nothing is priced, for an upgrade to HTTP/2: what goes
// through that tunnel no paywall sees.
func (c *checker) tunnel(ctx context.Context, t Target) {
	a := c.ask(t, http1)
	a.method, a.path, a.what = http.MethodGet, absent, "for HTTP/2 in a tunnel"
	a.header = http.Header{"Connection": {"Upgrade, HTTP2-Settings"}, "Upgrade": {"h2c"}, "Http2-Settings": {"AAMAAABkAAQAAP__"}}
	if r, err := c.send(ctx, t, a); err == nil && r.status == http.StatusSwitchingProtocols {
		c.find(t, a, r, Open, ruleServed, "the upstream changes to HTTP/2 in a tunnel, through which every path can be had without a payment; remove `Upgrade: h2c` from requests")
	}
}

// hiddenURL asks for a path that does not exist, and names the target in a
// header that some upstreams believe.
func (c *checker) hiddenURL(ctx context.Context, t Target) {
	a := c.ask(t, http1)
	a.method, a.path = http.MethodGet, absent
	if r, err := c.send(ctx, t, a); err != nil || r.status != http.StatusNotFound {
		return // the answer would say nothing
	}
	a.what = "with X-Original-URL: " + t.URL.RequestURI()
	a.header = http.Header{"X-Original-Url": {t.URL.RequestURI()}, "X-Rewrite-Url": {t.URL.RequestURI()}}
	c.askAndJudge(ctx, t, a)
}
