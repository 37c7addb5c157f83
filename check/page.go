package check

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"golang.org/x/net/html"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// maxResources bounds how many resources of one page are asked for.
const maxResources = 50

// browserPage looks at what people see of a 402.
func (c *checker) browserPage(ctx context.Context, t Target, a ask, r *answer) {
	if r.header.Get(x402.HeaderPaymentRequired) == "" {
		c.find(t, a, r, Warning, ruleChallenge, "a browser's 402 has no PAYMENT-REQUIRED header: scripts that look like browsers cannot pay")
	}
	if strings.HasPrefix(r.header.Get("Content-Type"), "text/html") {
		c.resources(ctx, t, t.URL, r.body, "the page that asks for the payment")
	}
}

// page looks at an HTML page that is free: a URL, or a file as it would be at the
// first target.
func (c *checker) page(ctx context.Context, page string, targets []Target) {
	u, err := url.Parse(page)
	if err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
		t := Target{URL: u}
		a := c.ask(t, http1)
		a.header.Set("Accept", "text/html")
		a.header.Set("User-Agent", browser)
		r, err := c.send(ctx, t, a)
		switch {
		case err != nil:
			c.report.Unreachable = append(c.report.Unreachable, page+": "+err.Error())
		case r.status != http.StatusOK:
			c.find(t, a, r, Warning, rulePage, "the page cannot be read without a payment, so its resources are not known; give a file of it")
		default:
			c.resources(ctx, t, u, r.body, "the page")
		}
		return
	}
	content, err := os.ReadFile(page) //nolint:gosec // who runs the check names it
	if err != nil || len(targets) == 0 {
		c.report.Unreachable = append(c.report.Unreachable, page+": cannot be read")
		return
	}
	c.resources(ctx, Target{URL: targets[0].URL}, targets[0].URL, content, "the page "+page)
}

// resources asks for what a page loads by itself: a browser cannot pay for it.
func (c *checker) resources(ctx context.Context, t Target, base *url.URL, content []byte, what string) {
	n := 0
	for _, ref := range references(content) {
		u, err := base.Parse(ref)
		if err != nil || !strings.EqualFold(u.Host, base.Host) || u.Scheme != base.Scheme || c.tried["page "+u.String()] {
			continue
		}
		if n++; n > maxResources {
			return
		}
		u.Fragment = ""
		c.tried["page "+u.String()] = true
		resource := Target{URL: u}
		a := c.ask(resource, http1)
		r, err := c.send(ctx, resource, a)
		if err != nil {
			continue
		}
		if r.status == http.StatusPaymentRequired {
			c.find(t, c.ask(t, http1), r, Warning, rulePage, "%s loads %s, which has a price that a browser cannot pay: add a free line for it", what, clip(u.RequestURI()))
		}
	}
}

// references are the URLs that a page loads by itself.
func references(content []byte) []string {
	var found []string
	tokens := html.NewTokenizer(bytes.NewReader(content))
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			return slices.DeleteFunc(found, func(s string) bool { return s == "" })
		case html.StartTagToken, html.SelfClosingTagToken:
		default:
			continue
		}
		token := tokens.Token()
		attributes := map[string]string{}
		for _, a := range token.Attr {
			attributes[a.Key] = strings.TrimSpace(a.Val)
		}
		switch token.Data {
		case "base":
			if href := attributes["href"]; href != "" {
				return nil // its references lead elsewhere
			}
		case "img", "script", "iframe", "audio", "video", "source", "embed", "track", "input":
			found = append(found, attributes["src"], attributes["poster"])
		case "object":
			found = append(found, attributes["data"])
		case "link":
			rel := strings.ToLower(attributes["rel"])
			if strings.Contains(rel, "stylesheet") || strings.Contains(rel, "icon") || strings.Contains(rel, "preload") || strings.Contains(rel, "manifest") {
				found = append(found, attributes["href"])
			}
		}
	}
}
