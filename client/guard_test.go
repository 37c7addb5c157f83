package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

const drip = 5 * time.Millisecond

// dripsHead answers with a header that has no end.
func dripsHead(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
	for i := 0; ; i++ {
		if _, err := fmt.Fprintf(conn, "X-%d: x\r\n", i%10); err != nil {
			return
		}
		time.Sleep(drip)
	}
}

// hints answers with nothing but early hints.
func hints(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		w.WriteHeader(http.StatusEarlyHints)
		time.Sleep(drip)
	}
}

// silent does not answer before the client has gone.
func silent(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // else the server does not notice
	<-r.Context().Done()
}

// drips begins an answer, and sends a byte now and then.
func drips(status int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, " ")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(drip)
		}
	}
}

// stops begins an answer and says no more.
func stops(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, "the go")
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// TestSellersThatHoldUs: whatever a seller holds back or drips, before the payment
// and after it, the client comes to an end, and knows what it knows.
func TestSellersThatHoldUs(t *testing.T) {
	const pay = true
	small := []string{"Content-Type", "application/json", "Content-Length", "60000"}
	for name, tt := range map[string]struct {
		answer  http.HandlerFunc
		paid    bool // it answers the payment so, else the first request
		outcome Outcome
		err     error // of Do
		read    error // of the body
	}{
		"silent":                        {answer: silent, err: ErrSilent},
		"drips its header":              {answer: dripsHead, err: ErrSilent},
		"hints for ever":                {answer: hints, err: ErrSilent},
		"drips a challenge":             {answer: drips(402), outcome: Unpaid, err: ErrSilent},
		"drips a redirect":              {answer: drips(302, "Location", "/x"), err: ErrSilent},
		"free, and stops":               {answer: stops, outcome: Unpriced, read: ErrSilent},
		"free, and drips":               {answer: drips(200), outcome: Unpriced, read: ErrSlow},
		"payment, silent":               {answer: silent, paid: pay, outcome: Pending, err: ErrSilent},
		"payment, drips its header":     {answer: dripsHead, paid: pay, outcome: Pending, err: ErrSilent},
		"payment, hints for ever":       {answer: hints, paid: pay, outcome: Pending, err: ErrSilent},
		"payment, drips a refusal":      {answer: drips(409, small...), paid: pay, outcome: Failed, read: ErrSilent},
		"payment, drips what is thrown": {answer: drips(503, "Retry-After", "1"), paid: pay, outcome: Pending, read: ErrSlow},
		"payment, goods stop":           {answer: stops, paid: pay, outcome: Delivered, read: ErrSilent},
		"payment, goods drip":           {answer: drips(200), paid: pay, outcome: Delivered, read: ErrSlow},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSeller(t)
			if s.answers = []http.HandlerFunc{tt.answer}; !tt.paid {
				s.challenge = nil
				s.Config.Handler = tt.answer
			}
			c, _ := newClient(t)
			c.Wait = 3 * time.Second                            // by the clock that only pauses move
			c.Timeout, c.MaxTime = 2*time.Second, 4*time.Second // a busy machine may not drip for a while
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			result, err := c.Do(s.get(t, "/").WithContext(ctx))
			if !errors.Is(err, tt.err) || ctx.Err() != nil {
				t.Fatalf("%+v, %v", result, err)
			}
			if result == nil {
				if tt.outcome != 0 {
					t.Fatal("no result")
				}
				return
			}
			if result.Outcome != tt.outcome || tt.paid != (result.Payment != nil) {
				t.Errorf("%+v", result)
			}
			if result.Response != nil {
				_, err := io.Copy(io.Discard, result.Response.Body)
				if _ = result.Response.Body.Close(); !errors.Is(err, tt.read) || ctx.Err() != nil {
					t.Errorf("reading ends with %v", err)
				}
			}
		})
	}
}

// script is a transport without a network, for tests in which time does not pass
// by itself.
type script func(*http.Request) io.ReadCloser

// RoundTrip implements http.RoundTripper.
func (f script) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
	}
	if err := context.Cause(r.Context()); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: 200, Body: f(r), ContentLength: -1}, nil
}

// flow is a body of so many pieces, each after a pause.
type flow struct {
	pieces, size int
	pause        time.Duration
}

// Read implements io.Reader.
func (f *flow) Read(p []byte) (int, error) {
	if f.pieces == 0 {
		return 0, io.EOF
	}
	f.pieces--
	time.Sleep(f.pause)
	return min(f.size, len(p)), nil
}

// TestStreamsFlowOn: a stream that flows goes on beyond every bound, both ways,
// and so does one whose reader takes his time.
func TestStreamsFlowOn(t *testing.T) {
	const hour = 3600
	for name, tt := range map[string]struct {
		up, down flow
		reader   time.Duration // for which the reader sleeps between pieces
		err      error
	}{
		"speech for a day":       {down: flow{24 * hour, 2 << 10, time.Second}},
		"a slow upload":          {up: flow{3 * hour, 2 << 10, time.Second}},
		"pauses below the bound": {down: flow{60, 100, 59 * time.Second}},
		"a pause above it":       {down: flow{2, 100, 61 * time.Second}, err: ErrSilent},
		"drips for two hours":    {down: flow{2 * hour, 1, time.Second}, err: ErrSlow},
		"drips and flows":        {down: flow{2 * hour, 600, time.Second}},
		"an upload that drips":   {up: flow{2 * hour, 1, time.Second}, err: ErrSlow},
		"a slow reader":          {down: flow{100, 1, time.Second}, reader: 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// The script does not end by itself with the context: what comes late is
				// seen to be late.
				var ctx context.Context
				c := &Client{Transport: script(func(r *http.Request) io.ReadCloser {
					ctx = r.Context()
					return io.NopCloser(io.MultiReader(&tt.down))
				})}
				body := func() (io.ReadCloser, error) { up := tt.up; return io.NopCloser(&up), nil }
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://seller.example/", nil)
				req.Body, _ = body()
				req.GetBody = body
				result, err := c.Do(req)
				if err == nil {
					buf := make([]byte, 4<<10)
					for err == nil {
						if _, err = result.Response.Body.Read(buf); err == nil {
							err = context.Cause(ctx)
						}
						time.Sleep(tt.reader)
					}
					_ = result.Response.Body.Close()
				}
				if tt.err == nil && !errors.Is(err, io.EOF) || tt.err != nil && !errors.Is(err, tt.err) {
					t.Errorf("%v, want %v", err, tt.err)
				}
			})
		})
	}
}

// TestPatience: a try lasts no longer than Wait, but has time enough for an answer.
func TestPatience(t *testing.T) {
	c, clock := newClient(t)
	for _, tt := range []struct{ wait, timeout, left, want time.Duration }{
		{0, 0, 2 * time.Minute, time.Minute},
		{0, 0, 30 * time.Second, 30 * time.Second},
		{time.Second, 0, time.Second, minTry},
		{time.Second, time.Second, time.Second, time.Second},
		{-1, 0, 0, time.Minute},
		{-1, -1, 0, forever},
		{0, -1, 2 * time.Minute, 2 * time.Minute},
	} {
		c.Wait, c.Timeout = tt.wait, tt.timeout
		if got := c.patience(clock.time().Add(tt.left)); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

// TestGuardKeepsErrors: only what the guard ended has its error.
func TestGuardKeepsErrors(t *testing.T) {
	broken := errors.New("broken")
	c := &Client{Transport: script(func(*http.Request) io.ReadCloser { return io.NopCloser(iotest.ErrReader(broken)) })}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://seller.example/", strings.NewReader("x"))
	result, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer result.Response.Body.Close()
	if _, err := io.ReadAll(result.Response.Body); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// TestSilentNode: the node of --rpc cannot hold us either.
func TestSilentNode(t *testing.T) {
	s := newSeller(t)
	s.Config.Handler = http.HandlerFunc(silent)
	c, _ := newClient(t)
	c.RPC, c.Timeout = s.URL, 50*time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := c.sponsor(ctx, &Payment{Offer: Offer{permit2: true, Requirement: x402.Requirement{}}})
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		t.Error(err)
	}
}
