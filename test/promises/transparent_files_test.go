package promises

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Caddy's `header` directive edits header slices in place. Refusals share none: an
// edit for one path changes no answer of another, and the race detector sees none.
func TestRefusalsShareNoHeaderValues(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01", `header /paid/edited {
		defer
		Content-Type application/json text/plain
		Cache-Control no-store edited
		Payment-Response .+ edited
	}`)
	w.Facilitator.OnSettle(gate.RefusedSettle)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				w.Get("/paid/edited")
				w.Get("/paid/other")
			}
		})
	}
	wg.Wait()
	res := w.Pay(http.MethodGet, "/paid/edited")
	if res.Header.Get("Content-Type") != "text/plain" || res.Header.Get("Cache-Control") != "edited" || res.Header.Get(x402.HeaderPaymentResponse) != "edited" {
		t.Fatalf("the directive does not edit: %v", res.Header)
	}
	if _, err := x402.DecodeReceipt(res.Header.Get(x402.HeaderXPaymentResponse)); err != nil {
		t.Errorf("the other receipt was edited too: %v", err)
	}
	for _, path := range []string{"/paid/other", "/paid/%2e%2e/x"} {
		if res := w.Get(path); res.Header.Get("Content-Type") != "application/json" || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", path, res.StatusCode, res.Header)
		}
	}
}

// A preflight is looked up by the method that it asks for: a price for POST alone can
// be paid by browsers.
func TestPreflightIsOfTheMethodItAsksFor(t *testing.T) {
	w := gate.New(t, "price POST /x $0.01\ncors upstream")
	preflight := []string{
		"Origin", "https://app.example", "Access-Control-Request-Method", "POST",
		"Access-Control-Request-Headers", "payment-signature", "PAYMENT-SIGNATURE", "money", "X-PAYMENT", "money",
	}
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) { // never ends by itself
		for r.Context().Err() == nil {
			_, _ = io.WriteString(rw, gate.Goods)
			_ = http.NewResponseController(rw).Flush()
		}
	})
	res := w.Do(w.Request(http.MethodOptions, "/x", preflight...))
	w.Expect(res, 204, "")
	if res.Header.Get("Access-Control-Allow-Methods") != "POST" || !strings.Contains(res.Header.Get("Access-Control-Allow-Headers"), "PAYMENT-SIGNATURE") || res.Text != "" {
		t.Errorf("%v %q", res.Header, res.Text)
	}
	if r, _ := w.Upstream.Seen(); r.Header.Get("Payment-Signature") != "" || r.Header.Get("X-Payment") != "" {
		t.Error("the upstream saw a payment")
	}
	w.Expect(w.Do(w.Request(http.MethodOptions, "/x")), 405, "method_not_allowed")
}

// files is a directory with the same files under /paid and /open.
func files(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string][]byte{"big.txt": bytes.Repeat([]byte("0123456789abcdef"), 20_000), "empty.txt": nil} {
		for _, sub := range []string{"paid", "open"} {
			file := filepath.Join(dir, sub, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, content, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(file, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// newFileWorld sells files.
func newFileWorld(t *testing.T, options string, more ...string) *gate.World {
	t.Helper()
	w := gate.Prepare(t)
	before, _, _ := strings.Cut(w.Caddyfile(options, append(more, "root "+files(t))...), "reverse_proxy")
	w.Load(before + "file_server\n}")
	return w
}

// A paid answer is the unpaid one but for the receipt and who may keep it.
func TestFilesAreServedAsUnpriced(t *testing.T) {
	for _, encode := range []string{"", "encode gzip"} {
		w := newFileWorld(t, "price /paid/* $0.01", encode)
		etag := w.Get("/open/big.txt").Header.Get("ETag")
		for name, tc := range map[string]struct {
			method, file string
			header       []string
			charged      int
		}{
			"GET":                   {"GET", "big.txt", nil, 1},
			"HEAD":                  {"HEAD", "big.txt", nil, 1},
			"empty":                 {"GET", "empty.txt", nil, 1},
			"range":                 {"GET", "big.txt", []string{"Range", "bytes=5-9"}, 1},
			"ranges":                {"GET", "big.txt", []string{"Range", "bytes=5-9,20-30"}, 1},
			"416":                   {"GET", "big.txt", []string{"Range", "bytes=99999999-"}, 0},
			"If-Range":              {"GET", "big.txt", []string{"Range", "bytes=5-9", "If-Range", etag}, 1},
			"If-Range, other":       {"GET", "big.txt", []string{"Range", "bytes=5-9", "If-Range", `"no"`}, 1},
			"304":                   {"GET", "big.txt", []string{"If-None-Match", etag}, 0},
			"412":                   {"GET", "big.txt", []string{"If-Match", `"no"`}, 0},
			"404":                   {"GET", "none.txt", nil, 0},
			"gzip":                  {"GET", "big.txt", []string{"Accept-Encoding", "gzip"}, 1},
			"gzip, HEAD":            {"HEAD", "big.txt", []string{"Accept-Encoding", "gzip"}, 1},
			"gzip, 304":             {"GET", "big.txt", []string{"Accept-Encoding", "gzip", "If-None-Match", etag}, 0},
			"gzip, range, If-Range": {"GET", "big.txt", []string{"Accept-Encoding", "gzip", "Range", "bytes=5-9", "If-Range", etag}, 1},
		} {
			t.Run(encode+" "+name, func(t *testing.T) {
				w.T = t
				moved := w.Facilitator.Transfers()
				pay := func() gate.Answer {
					s := w.Sign(tc.method, "/paid/"+tc.file, gate.NewPayer(t)).V2(t)
					return w.Do(w.Request(tc.method, "/paid/"+tc.file, append([]string{"PAYMENT-SIGNATURE", s}, tc.header...)...))
				}
				open := w.Do(w.Request(tc.method, "/open/"+tc.file, tc.header...))
				paid := pay()
				w.Expect(paid, open.StatusCode, "")
				if got := w.Facilitator.Transfers() - moved; got != tc.charged || (paid.Header.Get("Payment-Response") != "") != (tc.charged > 0) {
					t.Errorf("%d transfers, %v", got, paid.Header)
				}
				if a, b := sameBut(open), sameBut(paid); a != b {
					t.Errorf("unpriced:\n%.500s\npaid:\n%.500s", a, b)
				}
				if tc.charged == 0 {
					return
				}
				w.Facilitator.OnSettle(gate.RefusedSettle)
				defer w.Facilitator.OnSettle(nil)
				refused := pay()
				w.Expect(refused, 402, "insufficient_funds")
				for _, name := range []string{"ETag", "Content-Range", "Last-Modified", "Accept-Ranges"} {
					if refused.Header.Get(name) != "" {
						t.Errorf("%s of the goods is on the refusal", name)
					}
				}
			})
		}
	}
}

// sameBut is an answer without what the gate may add and what differs by
// itself.
func sameBut(res gate.Answer) string {
	header := res.Header.Clone()
	for _, name := range []string{"Date", "Payment-Response", "Cache-Control"} {
		header.Del(name)
	}
	header["Vary"] = slices.DeleteFunc(header["Vary"], func(v string) bool { return v == "PAYMENT-SIGNATURE, X-PAYMENT" })
	body := res.Text
	if _, boundary, ok := strings.Cut(header.Get("Content-Type"), "boundary="); ok {
		body = strings.ReplaceAll(body, boundary, "boundary")
		header.Set("Content-Type", "multipart/byteranges")
	}
	var b strings.Builder
	_ = header.Write(&b) // sorted
	return b.String() + body
}

// HTTP/2 has its own writer: trailers, refusals and cut answers go the same way
// as on HTTP/1.
func TestHTTP2IsAnsweredLikeHTTP1(t *testing.T) {
	w := gate.Prepare(t)
	w.Load(strings.Replace(w.Caddyfile("price /paid/* $0.01"), "auto_https off", "auto_https off\nservers {\nprotocols h1 h2c\n}", 1))
	var only http.Protocols
	only.SetUnencryptedHTTP2(true) // the same but for the certificates
	w.HTTP.Transport = &http.Transport{Protocols: &only, DisableCompression: true}
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Trailer", "X-Sum")
		rw.Header().Set("X-Upstream", "yes")
		rw.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(rw, gate.Goods)
		_ = http.NewResponseController(rw).Flush()
		_, _ = io.WriteString(rw, gate.Goods)
		rw.Header().Set("X-Sum", "1")
		rw.Header().Set(http.TrailerPrefix+"X-Late", "2")
	})
	res := w.Pay(http.MethodGet, "/paid/x")
	w.Expect(res, 200, "")
	if res.ProtoMajor != 2 || res.Text != gate.Goods+gate.Goods || res.Trailer.Get("X-Sum") != "1" || res.Trailer.Get("X-Late") != "2" || !gate.ReceiptOf(t, res).Success {
		t.Errorf("%s %q %v %v", res.Proto, res.Text, res.Header, res.Trailer)
	}

	w.Facilitator.OnSettle(gate.RefusedSettle)
	res = w.Pay(http.MethodGet, "/paid/x")
	w.Expect(res, 402, "insufficient_funds")
	if res.Header.Get("X-Upstream") != "" || len(res.Trailer) != 0 || strings.Contains(res.Text, gate.Goods) {
		t.Errorf("%v %v %q", res.Header, res.Trailer, res.Text)
	}
	w.Facilitator.OnSettle(nil)

	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, gate.Goods)
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	})
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	moved := w.Facilitator.Transfers()
	if res = w.Get("/paid/x", "PAYMENT-SIGNATURE", s); res.Err == nil {
		t.Fatalf("a cut answer arrived whole: %d %q", res.StatusCode, res.Text)
	}
	w.Upstream.On(nil)
	w.Until(func() bool { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s).StatusCode == 200 })
	if got := w.Facilitator.Transfers() - moved; got != 1 {
		t.Errorf("%d transfers", got)
	}
}
