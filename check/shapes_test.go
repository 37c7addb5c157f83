package check

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// newChecker is a checker of a https site whose plain twin is the server.
func newChecker(t *testing.T, h http.HandlerFunc) (*checker, Target) {
	t.Helper()
	twin := httptest.NewServer(h)
	t.Cleanup(twin.Close)
	target := &url.URL{Scheme: "https", Host: "shop.example", Path: "/paid/x"}
	plain := &url.URL{Scheme: "http", Host: "shop.example"}
	address, err := url.Parse(twin.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := &checker{
		Options: Options{MaxRequests: 100, Timeout: time.Second}, report: &Report{}, limiter: rate.NewLimiter(rate.Inf, 1),
		wires: map[string]*wires{"http://shop.example": newWires(plain, address.Host, false, time.Second)}, tried: map[string]bool{},
	}
	t.Cleanup(c.close)
	return c, Target{URL: target}
}

func TestWithoutTLS(t *testing.T) {
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   []Finding
	}{
		"redirects": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://shop.example"+r.URL.Path, http.StatusPermanentRedirect)
		}, nil},
		"serves": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("goods")) }, []Finding{{Severity: Open, Rule: ruleServed}}},
		"sells":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusPaymentRequired) }, []Finding{{Severity: Warning, Rule: ruleHTTP}}},
	} {
		t.Run(name, func(t *testing.T) {
			c, target := newChecker(t, tt.answer)
			c.withoutTLS(context.Background(), target)
			if len(c.report.Findings) != len(tt.want) {
				t.Fatalf("%v", c.report.Findings)
			}
			for i, want := range tt.want {
				if got := c.report.Findings[i]; got.Severity != want.Severity || got.Rule != want.Rule {
					t.Errorf("%v", got)
				}
			}
		})
	}
}

func TestUpstreams(t *testing.T) {
	for name, tt := range map[string]struct {
		upstream string
		answer   http.HandlerFunc
		found    int
	}{
		"answers":         {"http://10.0.0.7:9000", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.Host + r.URL.Path)) }, 1},
		"refuses":         {"http://10.0.0.7:9000", http.NotFound, 0},
		"on this machine": {"http://127.0.0.1:9000", func(w http.ResponseWriter, _ *http.Request) { t.Error("it was asked"); _, _ = w.Write([]byte("x")) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c, target := newChecker(t, tt.answer)
			c.wires[tt.upstream] = c.wires["http://shop.example"]
			target.Upstreams = []string{tt.upstream}
			c.upstreams(context.Background(), target)
			if len(c.report.Findings) != tt.found {
				t.Errorf("%v", c.report.Findings)
			}
		})
	}
}

// TestLimitedIsNotClosed: what a limiter answers says nothing of the gate.
func TestLimitedIsNotClosed(t *testing.T) {
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n++; n > 5 {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		w.WriteHeader(http.StatusPaymentRequired)
	}))
	defer server.Close()
	u, err := ParseURL(server.URL + "/paid/x")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(context.Background(), Options{Rate: 1_000_000, MaxRequests: 60}, []Target{{URL: u}})
	if err != nil || r.Unanswered < 40 {
		t.Errorf("%+v %v", r, err)
	}
}

// TestAsksOnceMore: an answer that was lost once is asked for again.
func TestAsksOnceMore(t *testing.T) {
	var n atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%7 == 3 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusPaymentRequired)
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	var targets []Target
	for _, path := range []string{"/paid/x", "/paid/y"} {
		u, err := ParseURL(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, Target{URL: u})
	}
	r, err := Run(context.Background(), Options{Rate: 1_000_000, Insecure: true}, targets)
	if err != nil || r.Unanswered != 0 || r.Complete != 2 || !slices.Equal(r.Protocols, []string{http1, http2Name}) {
		t.Errorf("%+v %v", r, err)
	}
}

// TestTunnel: an upstream that takes HTTP/2 in a tunnel is found.
func TestTunnel(t *testing.T) {
	for _, upgrades := range []bool{true, false} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if upgrades && r.Header.Get("Upgrade") == "h2c" {
				w.Header().Set("Connection", "Upgrade")
				w.Header().Set("Upgrade", "h2c")
				w.WriteHeader(http.StatusSwitchingProtocols)
				return
			}
			w.WriteHeader(http.StatusPaymentRequired)
		}))
		defer server.Close()
		u, err := ParseURL(server.URL + "/paid/x")
		if err != nil {
			t.Fatal(err)
		}
		r, err := Run(context.Background(), Options{Rate: 1_000_000}, []Target{{URL: u}})
		if err != nil {
			t.Fatal(err)
		}
		if found := slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Open }); found != upgrades {
			t.Errorf("upgrades %t: %v", upgrades, r.Findings)
		}
	}
}
