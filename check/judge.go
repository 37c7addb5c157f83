package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Rules that findings break: stable names for scripts.
const (
	ruleServed      = "served"             // an answer without a payment
	ruleNotPriced   = "not_priced"         // the URL has no price
	ruleNotSold     = "not_sold"           // it is closed, and cannot be bought
	ruleMaybeServed = "reached_upstream"   // a spelling seems to have got through
	ruleNeighbour   = "neighbour"          // a path that may be the same goods
	ruleRedirect    = "redirect"           // redirects elsewhere
	ruleHost        = "other_host"         // another Host gets an answer
	ruleUpstream    = "upstream"           // the upstream can be reached from here
	ruleHTTP        = "plain_http"         // without TLS
	rulePreflight   = "preflight"          // browsers cannot ask
	ruleCORS        = "cors"               // browsers cannot read
	ruleChallenge   = "challenge"          // cannot be read
	ruleUnpayable   = "unpayable"          // stock clients cannot pay
	ruleUnasked     = "not_paid_unasked"   // stock clients refuse unless told
	ruleVersion1    = "version_1"          // clients of version 1 cannot pay
	ruleTooLarge    = "too_large"          // near the limits of clients
	ruleResource    = "resource_url"       // names another URL
	ruleCacheable   = "cacheable"          // caches may keep the 402
	rulePage        = "priced_subresource" // a page needs what is priced
	ruleTestMoney   = "test_money"         // is worth nothing
)

// plain asks for the target as it is, over every version of HTTP, and reports
// whether it has a price.
func (c *checker) plain(ctx context.Context, t Target) bool {
	c.Progress("%s", t.URL)
	priced, reached := false, false
	var firstErr error // of HTTP/1.1, which all servers speak
	for i, proto := range []string{http1, http2Name, http3Name} {
		w := c.wiresTo(t.URL)
		if proto == http3Name && (w.scheme != "https" || w.silent) {
			continue
		}
		a := c.ask(t, proto)
		a.header.Set("Origin", "https://paywall-check.example")
		r, err := c.send(ctx, t, a)
		if errors.Is(err, errBounded) {
			return priced
		}
		if err != nil {
			if i == 0 {
				firstErr = err
			}
			w.silent = proto == http3Name && !w.mayAnswer(proto)
			continue
		}
		reached = true
		w.speaks(proto)
		w.advertised = w.advertised || strings.Contains(strings.Join(r.header.Values("Alt-Svc"), ","), "h3")
		if !slices.Contains(c.report.Protocols, proto) {
			c.report.Protocols = append(c.report.Protocols, proto)
		}
		if c.judgePlain(t, a, r) {
			priced = true
			c.challenge(t, a, r)
		}
	}
	if !reached {
		c.report.Unreachable = append(c.report.Unreachable, fmt.Sprintf("%s: %v", t.URL, firstErr))
	}
	return priced
}

// ask is the target's own request.
func (c *checker) ask(t Target, proto string) ask {
	return ask{proto: proto, method: t.method(), path: t.URL.RequestURI(), host: t.URL.Host, header: http.Header{}}
}

// judgePlain judges the answer to the target's own request; true is a 402.
func (c *checker) judgePlain(t Target, a ask, r *answer) bool {
	switch {
	case r.status == http.StatusPaymentRequired:
		return true
	case goods(a, r):
		c.find(t, a, r, Open, ruleServed, "served without a payment (%s)", amount(r))
	case r.status == http.StatusTooManyRequests:
		c.find(t, a, r, Warning, ruleNotSold, "too many requests: give a lower --rate")
	case r.status >= 300 && r.status < 400 && leaves(t.URL, r):
		c.find(t, a, r, Warning, ruleRedirect, "redirects to another host without a payment; if that is a signed URL, the goods are open")
	case r.status >= 300 && r.status < 400:
		c.find(t, a, r, Warning, ruleNotPriced, "redirects to %s without asking for a payment; check that URL", clip(r.header.Get("Location")))
	case r.status == http.StatusServiceUnavailable:
		c.find(t, a, r, Warning, ruleNotSold, "closed, but nobody can buy: 503, so no facilitator settles what is accepted, or it has not answered yet")
	case r.status >= 500:
		c.find(t, a, r, Warning, ruleNotSold, "closed, but nobody can buy: the answer is an error")
	case r.status == http.StatusUnauthorized || r.status == http.StatusForbidden || r.status == http.StatusBadRequest || r.status == http.StatusMethodNotAllowed:
		c.find(t, a, r, Warning, ruleNotSold, "closed, but a client without credentials is not told a price")
	default:
		c.find(t, a, r, Warning, ruleNotPriced, "no price is asked for; is the paywall in front of this path, and is this its method?")
	}
	return false
}

// spellings asks for the target in other spellings, over every version that the
// server speaks.
func (c *checker) spellings(ctx context.Context, t Target) {
	w := c.wiresTo(t.URL)
	for _, proto := range w.spoken {
		c.neighbours(ctx, t, proto)
		var passed []string
		var last ask
		var lastAnswer *answer
		for _, path := range respell(t.URL.EscapedPath()) {
			a := c.ask(t, proto)
			if a.path = path; t.URL.RawQuery != "" && !strings.ContainsAny(path, "?#") {
				a.path += "?" + t.URL.RawQuery
			}
			r, err := c.send(ctx, t, a)
			if err != nil {
				if errors.Is(err, errBounded) || ctx.Err() != nil {
					return
				}
				continue // refused before it was an answer
			}
			if c.judge(ctx, t, a, r) && t.Made && (r.status == http.StatusNotFound || r.status == http.StatusGone) {
				passed, last, lastAnswer = append(passed, path), a, r
			}
		}
		if len(passed) > 0 {
			c.find(t, last, lastAnswer, Warning, ruleMaybeServed,
				"%d spellings are answered %d and not 402, so they seem to have come past the paywall; an existing path may be served so: %s",
				len(passed), lastAnswer.status, clip(strings.Join(passed, " ")))
		}
		if proto == http1 {
			a := c.ask(t, proto)
			a.target, a.what = t.URL.Scheme+"://"+t.URL.Host+t.URL.RequestURI(), "in absolute form"
			c.askAndJudge(ctx, t, a)
			a = c.ask(t, proto)
			a.target, a.what = "x:"+t.URL.Scheme+"://"+t.URL.Host+t.URL.RequestURI(), "in absolute form, as an opaque URL"
			c.askAndJudge(ctx, t, a)
			a = c.ask(t, proto)
			a.old, a.what = true, "in HTTP/1.0"
			c.askAndJudge(ctx, t, a)
		}
	}
}

// neighbours asks for paths that may be the same goods, or others.
func (c *checker) neighbours(ctx context.Context, t Target, proto string) {
	for _, path := range neighbours(t.URL.EscapedPath()) {
		a := c.ask(t, proto)
		a.path = path
		r, err := c.send(ctx, t, a)
		if err != nil || !goods(a, r) || c.catchAll(ctx, t, r) {
			continue
		}
		c.find(t, a, r, Warning, ruleNeighbour, "answered without a payment (%s); if the upstream serves the same goods under this path, price it too", amount(r))
	}
}

// absent is a path that no site has.
const absent = "/paywall-check-does-not-exist"

// catchAll reports whether an answer is the one that any path gets, also one that
// does not exist: it gives nothing away.
func (c *checker) catchAll(ctx context.Context, t Target, r *answer) bool {
	w := c.wiresTo(t.URL)
	if w.absent == nil {
		a := c.ask(t, http1)
		a.method, a.path = http.MethodGet, absent
		answer, err := c.send(ctx, t, a)
		if err != nil {
			return false
		}
		w.absent = answer
	}
	return len(r.body) > 0 && w.absent.status == r.status && bytes.Equal(w.absent.body, r.body)
}

// methods asks with other methods.
func (c *checker) methods(ctx context.Context, t Target) {
	for _, proto := range c.wiresTo(t.URL).spoken {
		methods := []string{http.MethodHead, http.MethodOptions, "QUERY", http.MethodTrace, "PAYWALLCHECK"}
		if proto == http1 {
			methods = append(methods, "get", "Get", "PROPFIND", "REPORT", "SEARCH")
		}
		if c.AllMethods {
			methods = append(methods, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete)
		}
		for _, method := range methods {
			if method == t.method() {
				continue
			}
			a := c.ask(t, proto)
			a.method = method
			r := c.askAndJudge(ctx, t, a)
			if method == http.MethodHead && r != nil && r.status == http.StatusPaymentRequired && r.header.Get("Payment-Required") == "" && t.method() == http.MethodGet {
				c.find(t, a, r, Warning, ruleChallenge, "HEAD has a 402 without a challenge")
			}
		}
	}
	for _, name := range []string{"X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"} {
		a := c.ask(t, http1)
		a.method, a.what = http.MethodOptions, "with "+name+": "+t.method()
		a.header.Set(name, t.method())
		c.askAndJudge(ctx, t, a)
	}
	c.preflight(ctx, t)
}

// askAndJudge sends a request and judges the answer; nil if none came.
func (c *checker) askAndJudge(ctx context.Context, t Target, a ask) *answer {
	r, err := c.send(ctx, t, a)
	if err != nil {
		return nil
	}
	c.judge(ctx, t, a, r)
	return r
}

// judge judges the answer to a request in another shape; true: it is closed.
func (c *checker) judge(ctx context.Context, t Target, a ask, r *answer) bool {
	switch {
	case goods(a, r) && c.catchAll(ctx, t, r):
		return true
	case goods(a, r):
		c.find(t, a, r, Open, ruleServed, "answered without a payment (%s)", amount(r))
	case r.status >= 200 && r.status < 300 && a.method == http.MethodOptions:
		// Permission to ask, and no content.
	case r.status >= 200 && r.status < 300:
		c.find(t, a, r, Warning, ruleServed, "answered %d without a payment, and without content", r.status)
	case r.status >= 300 && r.status < 400 && r.status != http.StatusNotModified && leaves(t.URL, r):
		c.find(t, a, r, Warning, ruleRedirect, "redirects to another host without a payment; if that is a signed URL, the goods are open")
	case r.status == http.StatusNotModified:
		c.find(t, a, r, Warning, ruleServed, "answered 304 without a payment: that the goods have not changed")
	default:
		return true
	}
	return false
}

// goods reports whether an answer gives something away.
func goods(a ask, r *answer) bool {
	switch {
	case r.status == http.StatusSwitchingProtocols:
		return true
	case r.status < 200 || r.status >= 300:
		return false
	case a.method == http.MethodHead:
		return true // its headers are those of the goods
	default:
		return len(r.body) > 0
	}
}

// leaves reports whether a redirect goes to another host.
func leaves(u *url.URL, r *answer) bool {
	to, err := u.Parse(r.header.Get("Location"))
	return err != nil || !strings.EqualFold(to.Hostname(), u.Hostname())
}
