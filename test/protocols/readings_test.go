package protocols

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/test/model"
)

// What a site sells, and what it gives away beside it.
var sold = []string{"/paid", "/api/v1/report", "/files/a", "/files/b/c.css", "/x.pdf", "/users/7/secret", "/café", "/tasks/k", "/buy.php"}

const soldLines = `
	price /paid /api/v1/report $0.01
	price /files/* $0.01
	price *.pdf $0.01
	price /users/*/secret $0.01
	price /café $0.01
	price /tasks/k /buy.php $0.01
	free /static/* /public /x/* /index.php
	free *.css *.js`

// TestNoSpellingIsServedUnpaid sends spellings of priced paths that no payment
// comes with, and asks the bytes that reach the upstream what they would be
// served.
func TestNoSpellingIsServedUnpaid(t *testing.T) {
	raw := newRawUpstream(t, sold...)
	// The buffers spare us a race of Caddy's (2.11.9): its reader of request
	// trailers against net/http's, where a request of HTTP/3 is slow to end.
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: soldLines, Block: strings.ReplaceAll(`
		handle_path /shop/* {
			{gate}
			reverse_proxy {raw} {
				request_buffers 4k
			}
		}
		handle /old/* {
			uri replace /old/ /
			{gate}
			reverse_proxy {raw} {
				request_buffers 4k
			}
		}
		handle {
			{gate}
			reverse_proxy {raw} {
				request_buffers 4k
			}
		}`, "{raw}", raw.address)})
	for _, tc := range []struct {
		protocol, prefix string
		each             int // spellings of each path
	}{
		{"h1", "", 130},
		{"h1", "/shop", 40},
		{"h1", "/old", 40},
		{"h1", "http://" + gate.Host, 40},
		{"h2c", "", 40},
		{"h2", "/shop", 20},
		{"h3", "", 40},
	} {
		t.Run(tc.protocol+" "+tc.prefix, func(t *testing.T) { sellsEverySpelling(t, w, tc.protocol, tc.prefix, tc.each) })
	}

	// A front controller, to which every path is rewritten.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.php"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w = gate.NewTwins(t, gate.TwinsConfig{Prices: soldLines, Block: `
		root ` + dir + `
		try_files {path} /index.php
		{gate}
		reverse_proxy ` + raw.address + ` {
			header_up X-Front {http.request.orig_uri}
			request_buffers 4k
		}`})
	for _, protocol := range []string{"h1", "h3"} {
		t.Run(protocol+" try_files", func(t *testing.T) { sellsEverySpelling(t, w, protocol, "", 40) })
	}
}

// sellsEverySpelling sends spellings of what is sold to both sites.
func sellsEverySpelling(t *testing.T, w *gate.Twins, protocol, prefix string, each int) {
	var targets []string
	for _, path := range sold {
		spellings := model.Spellings(path, 260)
		for i := range each {
			target := prefix + spellings[i*len(spellings)/each]
			if _, err := url.ParseRequestURI(target); err != nil && protocol != "h1" {
				continue // no request of HTTP/2 and 3; the client would try for ever
			}
			targets = append(targets, target)
		}
	}
	served, statuses := 0, map[int]int{}
	for _, res := range unpaid(t, w.Open, protocol, http.MethodGet, targets) {
		if res.Header.Get("X-Sold") == "true" {
			served++
		}
	}
	for i, res := range unpaid(t, w.Gated, protocol, http.MethodGet, targets) {
		statuses[res.StatusCode]++
		if res.Header.Get("X-Sold") == "true" {
			t.Errorf("%q is served unpaid: %s", targets[i], res.Text)
		}
		if res.StatusCode == http.StatusPaymentRequired && res.Header.Get("Payment-Required") == "" {
			t.Errorf("%q: no challenge: %v", targets[i], res)
		}
	}
	if served < len(targets)/3 || statuses[http.StatusPaymentRequired] < served/2 {
		t.Errorf("of %d spellings %d are served without the gate, %v with it: this tests nothing", len(targets), served, statuses)
	}
	t.Logf("%d spellings: %d served without the gate; with it: %v", len(targets), served, statuses)
	if w.Facilitator.Calls() != 0 {
		t.Errorf("the facilitator was asked %d times", w.Facilitator.Calls())
	}
}

// unpaid sends requests without payments, several at a time.
func unpaid(t *testing.T, s gate.Site, protocol, method string, targets []string) []gate.Answer {
	t.Helper()
	answers := make([]gate.Answer, len(targets))
	var workers sync.WaitGroup
	const at = 4
	for worker := range at {
		workers.Go(func() {
			send := sender(t, s, protocol)
			for i := worker; i < len(targets) && !t.Failed(); i += at {
				answers[i] = send(method, targets[i])
			}
		})
	}
	workers.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return answers
}

// sender returns a function that sends targets as they are.
func sender(t testing.TB, s gate.Site, protocol string) func(method, target string, header ...string) gate.Answer {
	t.Helper()
	if protocol == "h1" {
		c := &rawClient{t: t, address: s.Plain}
		t.Cleanup(c.close)
		return c.send
	}
	c := s.Client(t, protocol)
	return func(method, target string, header ...string) gate.Answer {
		r := &http.Request{Method: method, Header: http.Header{}, Host: gate.Host, URL: &url.URL{Scheme: "http", Host: gate.Host, Opaque: "//" + gate.Host + target}}
		for i := 0; i < len(header); i += 2 {
			r.Header.Add(header[i], header[i+1])
		}
		return c.Send(r)
	}
}
