package protocols

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

const partner = "@partner header X-Api-Key s3cret\n@monitor header User-Agent monitor"

// Who is exempt gets everything as if there was no gate, also what nobody can buy; who is
// not, pays as before.
func TestTheExemptPayNothing(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01\nprice POST /first $0.01\nprice @monitor /paid/x $0.5\nexempt @partner\nexempt @monitor\notherwise refuse", partner)
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprint(rw, r.Method, " ", r.RequestURI, " ", r.Header.Get("X-Api-Key"), r.Header.Get("Payment-Signature"), r.Header.Get("Paywall-Payer"))
	})
	for _, tc := range []struct {
		method, target string
		strangers      int
	}{
		{"GET", "/paid/x", 402},
		{"HEAD", "/paid/x", 402},
		{"POST", "/first", 402},
		{"GET", "/first", 405},
		{"GET", "/else", 403},
		{"GET", "/paid/..%2felse", 403},
		{"OPTIONS", "/paid/x", 402},
	} {
		res := w.Do(w.Request(tc.method, tc.target, "X-Api-Key", "s3cret", "Payment-Signature", "-mine", "Paywall-Payer", "me"))
		want := tc.method + " " + tc.target + " s3cret-mine"
		if tc.method == "HEAD" {
			want = ""
		}
		if res.StatusCode != 200 || res.Text != want {
			t.Errorf("%s %s: %v", tc.method, tc.target, res)
		}
		if res := w.Do(w.Request(tc.method, tc.target, "User-Agent", "monitor")); res.StatusCode != 200 {
			t.Errorf("%s %s of the monitor: %v", tc.method, tc.target, res)
		}
		for _, key := range []string{"", "S3cret", "s3cret "} {
			res := w.Do(w.Request(tc.method, tc.target, "X-Api-Key", key+"x"))
			if res.StatusCode != tc.strangers {
				t.Errorf("%s %s with another key: %v", tc.method, tc.target, res)
			}
		}
	}
	w.Counts(14, 0, 0)
	if res := w.Pay(http.MethodGet, "/paid/y"); res.StatusCode != 200 || !strings.Contains(strings.Join(res.Header["Vary"], ","), "X-Api-Key") {
		t.Errorf("paid: %v", res)
	}
}

// What an exempt client gets, no cache between hands on to anybody, whatever it is told of
// shared caches; what everybody has for nothing is kept as before.
func TestCachesKeepWhatTheExemptGet(t *testing.T) {
	for _, more := range []string{"", "shared_caches allow"} {
		w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price /paid* $0.01\nexempt @partner\n" + more, Around: partner})
		for _, header := range [][]string{
			nil,
			{"Cache-Control", "public, max-age=3600"},
			{"CDN-Cache-Control", "max-age=3600"},
			{"Surrogate-Control", "max-age=3600"},
			{"X-Accel-Expires", "3600"},
			{"Expires", "Fri, 01 Jan 2100 00:00:00 GMT"},
		} {
			for _, targeted := range []bool{false, true} {
				t.Run(fmt.Sprint(more, header, targeted), func(t *testing.T) {
					w.Upstream.On(says(200, gate.Goods, header...))
					c := &gate.Client{T: t, Protocol: "h1", RoundTripper: &cache{RoundTripper: w.Gated.Transport(t, "h1"), targeted: targeted, stored: map[string][]entry{}}}
					get := func(path string, header ...string) gate.Answer {
						return c.Send(w.Request(http.MethodGet, path, header...))
					}
					exempt := get("/paid", "X-Api-Key", "s3cret")
					if exempt.StatusCode != 200 || exempt.Text != gate.Goods || !strings.Contains(strings.Join(exempt.Header["Vary"], ","), "X-Api-Key") {
						t.Fatalf("%v", exempt)
					}
					if res := get("/paid"); res.StatusCode != 402 || strings.Contains(res.Text, gate.Goods) {
						t.Errorf("a stranger, after an exempt client: %v", res)
					}
					if res := c.Send(c.Paying(w.Request(http.MethodGet, "/paid"))); res.StatusCode != 200 || res.Header.Get("Age") != "" || res.Header.Get("Payment-Response") == "" {
						t.Errorf("a payer: %v", res)
					}
					if res := get("/paid", "X-Api-Key", "s3cret"); res.StatusCode != 200 || res.Header.Get("Age") != "" {
						t.Errorf("an exempt client again: %v", res)
					}
					free := get("/free", "X-Api-Key", "s3cret")
					if got := free.Header.Get("Cache-Control"); strings.Contains(got, "private") || len(free.Header["Vary"]) > 0 {
						t.Errorf("what is free anyway: %v", free)
					}
				})
			}
		}
	}
}

// A key in a query exempts only where every server sees it.
func TestAQueryExemptsOnlyWhereEveryServerSeesIt(t *testing.T) {
	w := gate.New(t, "price /* $0.01\nexempt @partner", "@partner query key=s3cret")
	for target, want := range map[string]int{
		"/x?key=s3cret":           200,
		"/x?a=1&key=s3cret":       200,
		"/x":                      402,
		"/x?key=other":            402,
		"/x?key=s3cret&key=other": 402,
		"/x?KEY=s3cret":           402,
		"/x?key[]=s3cret":         402,
		"/x%3fkey=s3cret":         402,
	} {
		if res := w.Get(target); res.StatusCode != want {
			t.Errorf("%s: want %d, got %v", target, want, res)
		}
	}
}

// A matcher that cannot say whether a client is exempt lets nobody in.
func TestAMatcherThatFailsExemptsNobody(t *testing.T) {
	w := gate.New(t, "price /* $0.01\nexempt @partner", "@partner expression `int({http.request.header.X-N}) == 7`")
	for n, want := range map[string]int{"7": 200, "8": 402, "x": 500} {
		if res := w.Get("/x", "X-N", n); res.StatusCode != want {
			t.Errorf("%s: want %d, got %v", n, want, res)
		}
	}
	w.Counts(1, 0, 0)
}

// The exempt are not counted: they are no customers that were missed.
func TestTheExemptAreNotCounted(t *testing.T) {
	for name, block := range map[string]string{
		"sold":         "price /a $0.01\nexempt @partner",
		"observed":     "observe\nprice /a $0.01\nexempt @partner",
		"observe line": "price /b $1\nprice /a $0.01 {\n observe\n}\nexempt @partner",
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.Prepare(t)
			file := filepath.Join(t.TempDir(), "shop.db")
			w.Load(strings.Replace(w.Caddyfile(block, partner), "ledger memory i_accept_loss", "ledger sqlite "+file, 1))
			for range 3 {
				if res := w.Get("/a", "X-Api-Key", "s3cret"); res.StatusCode != 200 {
					t.Error(res)
				}
			}
			w.Get("/a")
			sums := observed(t, strings.Replace(file, ".db", "-traffic.db", 1))
			if len(sums) != 1 || !strings.HasPrefix(sums["/a USD"], "asked 1, ") {
				t.Error(sums)
			}
		})
	}
}
