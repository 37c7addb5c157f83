package soak

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestCopies sends one payment a thousand times at once: over HTTP/1.1, 2 and 3,
// in version 1 and 2, each time spelled otherwise. One of them buys.
func TestCopies(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			rounds, n := 1, 300
			if long {
				n = 1000
			}
			if full {
				rounds = 20
			}
			w := newWorld(t)
			g := w.gateway(shop{timeout: "1m"}) // nobody hangs here, but the machine may be busy
			for range rounds {
				w.copies(g, method, n)
			}
			w.audit()
			g.stop()
			w.compareFile(g)
		})
	}
}

func (w *world) copies(g *gateway, method string, n int) {
	w.t.Helper()
	p := w.purchase(purchase{method: method})
	over1 := client(nil)
	over2 := client(func(tr *http.Transport) { tr.ForceAttemptHTTP2 = true })
	h3 := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}} //nolint:gosec // Caddy's own
	defer h3.Close()
	over3 := &http.Client{Transport: h3, Timeout: time.Minute}
	ways := []struct {
		protocol int
		c        *http.Client
		origin   string
	}{{1, over1, g.plain}, {2, over2, g.secret}, {3, over3, g.secret}}

	// The host is part of what is bought, so all ask for the same.
	send := func(i int, h header) (*answer, int, error) {
		way := ways[i%len(ways)]
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, method, way.origin+p.path, nil)
		if err != nil {
			return nil, 0, err
		}
		req.Host = "localhost"
		if h.name != "" {
			req.Header[h.name] = []string{h.value}
		}
		resp, err := way.c.Do(req)
		if err != nil {
			return nil, 0, err
		}
		defer resp.Body.Close()
		if resp.ProtoMajor != way.protocol {
			w.t.Errorf("HTTP/%d instead of %d", resp.ProtoMajor, way.protocol)
		}
		a := &answer{status: resp.StatusCode, header: resp.Header}
		if ch, err := x402.DecodeChallenge(resp.Header.Get(x402.HeaderPaymentRequired)); err == nil {
			a.code = ch.Error
		}
		a.body, a.broken = io.ReadAll(resp.Body)
		return a, resp.ProtoMajor, nil
	}
	for i := range ways { // the certificate takes a moment
		var a *answer
		var err error
		for range 100 {
			if a, _, err = send(i, header{}); err == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if err != nil || a.status != http.StatusPaymentRequired {
			w.t.Fatalf("asking over HTTP/%d: %v %v", ways[i].protocol, a, err)
		}
	}
	a, _, err := send(0, header{})
	w.must(err)
	ch, err := x402.DecodeChallenge(a.header.Get(x402.HeaderPaymentRequired))
	w.must(err)
	s, err := p.sign(x402.V2, ch)
	w.must(err)
	headers := checkSpellings(w.t, *s, ch.Accepts[0])

	// The upstream takes a moment, so that most copies come meanwhile.
	slow := func(rw http.ResponseWriter, r *http.Request) bool {
		time.Sleep(w.between(0, 500*time.Millisecond))
		return give(rw, r)
	}
	w.up.will(p.path, slow, slow, slow)
	var all sync.WaitGroup
	var mu sync.Mutex
	counts := make(map[string]int)
	start := make(chan struct{})
	try := func(i int, h header) {
		a, protocol, err := send(i, h)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			p.fault("copy %d over HTTP/%d: %v", i, ways[i%len(ways)].protocol, err)
		case a.status == http.StatusOK:
			p.got++
			counts["200"]++
			if string(a.body) != goods(p.path) {
				p.fault("other goods over HTTP/%d: %d bytes, %v", protocol, len(a.body), a.broken)
			}
		case a.status == http.StatusConflict:
			counts["409"]++
		case a.status == http.StatusPaymentRequired && a.code == string(x402.CodePaymentAlreadyUsed):
			counts["402 "+a.code]++
		default:
			p.fault("copy %d over HTTP/%d: %d %s %.80s", i, protocol, a.status, a.code, a.body)
		}
	}
	for i := range n {
		h := headers[w.n(len(headers))]
		all.Go(func() {
			<-start
			try(i, h)
		})
	}
	close(start)
	all.Wait()
	for i, h := range headers { // and once more, when all is over
		try(i, h)
	}
	w.t.Logf("%d spellings, %v", len(headers), counts)
	if n := w.up.started(p.path); n != 1 {
		p.fault("the upstream was started %d times", n)
	}
	if len(p.faults) > 20 {
		p.faults = append(p.faults[:20], "... and more: "+strings.Join(p.faults[20:21], ""))
	}
}
