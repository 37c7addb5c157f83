package remote

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// listing is a Supported with one kind.
func listing(version int, network string) *x402.Supported {
	return &x402.Supported{Kinds: []x402.Kind{{X402Version: version, Scheme: "exact", Network: network}}}
}

func TestSupportedAsksAgainWhenToldToWait(t *testing.T) {
	const good = `{"kinds":[]}`
	for name, c := range map[string]struct {
		header []string // of the answers 429 before the good one
		want   []time.Duration
		fails  bool
	}{
		"seconds":         {header: []string{"3"}, want: []time.Duration{3 * time.Second}},
		"at once":         {header: []string{"0"}, want: []time.Duration{0}},
		"a date long ago": {header: []string{"Wed, 21 Oct 2015 07:28:00 GMT"}, want: []time.Duration{0}},
		"too long":        {header: []string{"9999"}, want: []time.Duration{maxBackoff}},
		"no time given":   {header: []string{"", "", ""}, want: []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}},
		"for ever":        {header: []string{"1", "1", "1", "1"}, want: []time.Duration{time.Second, time.Second, time.Second}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			left := c.header
			f := at(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if len(left) == 0 {
					_, _ = io.WriteString(w, good)
					return
				}
				w.Header().Set("Retry-After", left[0])
				left = left[1:]
				w.WriteHeader(http.StatusTooManyRequests)
			})))
			var slept []time.Duration
			f.sleep = func(_ context.Context, d time.Duration) error { slept = append(slept, d); return nil }
			_, err := f.Supported(t.Context())
			if (err != nil) != c.fails {
				t.Errorf("error %v", err)
			}
			if len(slept) != len(c.want) {
				t.Fatalf("slept %v, want %v", slept, c.want)
			}
			for i := range slept {
				if slept[i] != c.want[i] {
					t.Errorf("slept %v, want %v", slept, c.want)
				}
			}
		})
	}
}

func TestSupportedStopsWaitingWithItsContext(t *testing.T) {
	f := at(t, serve(t, &fixed{status: 429, header: http.Header{"Retry-After": {"30"}}}))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := f.Supported(ctx); err == nil {
		t.Error("no error")
	}
}

func TestSupportedKeepsTheLastGoodAnswer(t *testing.T) {
	s := &fixed{status: 200, body: `{"kinds":[{"x402Version":1,"scheme":"exact","network":"base-sepolia"}]}`}
	f := at(t, serve(t, s))
	if _, err := f.Supported(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"", "<html>", "{}", "null", `{"kinds":null}`, strings.Repeat("x", maxSupported+1)} {
		s.body = body
		if _, err := f.Supported(t.Context()); err == nil {
			t.Errorf("%.20q is taken for an answer", body)
		}
	}
	s.status, s.body = 500, `{"kinds":[]}`
	if _, err := f.Supported(t.Context()); err == nil {
		t.Error("500 is taken for an answer")
	}
	if !speaksV1(f.shared.supported.Load(), requestV1().Requirement) {
		t.Error("the good answer is forgotten")
	}
}

// A version 1 payment goes as it came only to a facilitator that knows it.
func TestBodyVersion(t *testing.T) {
	for name, c := range map[string]struct {
		request   facilitator.Request
		supported *x402.Supported
		want      int
	}{
		"2, nothing known":        {request(), nil, 2},
		"2, only 1 listed":        {request(), listing(1, "base-sepolia"), 2},
		"1, nothing known":        {requestV1(), nil, 2},
		"1, only 2 listed":        {requestV1(), listing(2, baseSepolia), 2},
		"1, listed":               {requestV1(), listing(1, "base-sepolia"), 1},
		"1, listed by CAIP-2":     {requestV1(), listing(1, baseSepolia), 1},
		"1, another network":      {requestV1(), listing(1, "base"), 2},
		"1, network without name": {on(requestV1(), "eip155:31337", ""), listing(1, "eip155:31337"), 2},
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			f := at(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				got = string(b)
				_, _ = io.WriteString(w, `{"isValid":true}`)
			})))
			f.shared.supported.Store(c.supported)
			if _, err := f.Verify(t.Context(), c.request); err != nil {
				t.Fatal(err)
			}
			if want := map[int]string{1: `{"x402Version":1,`, 2: `{"x402Version":2,`}[c.want]; !strings.HasPrefix(got, want) {
				t.Errorf("body %s, want version %d", got, c.want)
			}
		})
	}
}
