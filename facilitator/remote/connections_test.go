package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// A dead idle connection must not make net/http send a settle twice; a verify may
// be sent again.
func TestDeadIdleConnection(t *testing.T) {
	for name, c := range map[string]struct {
		ask          func(*Facilitator) error
		wantRequests int32
		fails        bool
	}{
		"settle": {
			ask: func(f *Facilitator) error {
				if got := f.Settle(context.Background(), request()); got.Outcome != facilitator.Settled {
					return errors.New(got.Outcome.String())
				}
				return nil
			},
			wantRequests: 2, fails: true,
		},
		"verify": {
			ask: func(f *Facilitator) error {
				_, err := f.Verify(context.Background(), request())
				return err
			},
			wantRequests: 3,
		},
	} {
		t.Run(name, func(t *testing.T) {
			// The first connection answers once and then dies over the second
			// request; all others answer.
			var conns, requests atomic.Int32
			body := settledBody()
			if name == "verify" {
				body = verifyYes
			}
			url, _ := raw(t, func(c net.Conn) {
				first := conns.Add(1) == 1
				for n := 1; readRequest(c); n++ {
					requests.Add(1)
					if first && n == 2 {
						_ = c.Close()
						return
					}
					_, _ = io.WriteString(c, head+strconv.Itoa(len(body))+"\r\n\r\n"+body)
				}
			})
			f := at(t, url)
			if err := c.ask(f); err != nil {
				t.Fatalf("first: %v", err)
			}
			err := c.ask(f)
			if (err != nil) != c.fails {
				t.Errorf("second: %v", err)
			}
			if c.fails && err.Error() != "unknown" {
				t.Errorf("second: %v, want unknown", err)
			}
			if n := requests.Load(); n != c.wantRequests {
				t.Errorf("%d requests, want %d", n, c.wantRequests)
			}
		})
	}
}

// Sealed and read exclude each other, whoever comes first.
func TestOnceBody(t *testing.T) {
	o := newOnceBody([]byte("payment"))
	if !o.seal() {
		t.Fatal("an untouched body is not sealed")
	}
	if b, err := io.ReadAll(o); err == nil || len(b) != 0 {
		t.Errorf("read %q from a sealed body", b)
	}
	o = newOnceBody([]byte("payment"))
	if b, err := io.ReadAll(o); err != nil || string(b) != "payment" {
		t.Errorf("read %q, %v", b, err)
	}
	if o.seal() {
		t.Error("sealed after it was read")
	}
	for range 200 {
		o := newOnceBody([]byte("payment"))
		var wg sync.WaitGroup
		var read []byte
		wg.Go(func() { read, _ = io.ReadAll(o) })
		sealed := o.seal()
		wg.Wait()
		if sealed == (len(read) > 0) {
			t.Fatalf("sealed %t, read %q", sealed, read)
		}
	}
}

// Threats 80 and 95: credentials and payments follow no redirect.
func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := &fixed{status: 200, body: `{"isValid":true,"success":true,"kinds":[]}`}
	target := serve(t, elsewhere)
	for _, status := range []int{300, 301, 302, 303, 307, 308} {
		for _, to := range []string{target + "/canary-path?canary-query", "/elsewhere", ""} {
			s := &fixed{status: status, header: http.Header{}}
			if to != "" {
				s.header.Set("Location", to)
			}
			f, logs := provision(t, &Facilitator{URL: serve(t, s), Auth: &Auth{Type: "bearer", Token: "canary-token"}})
			v, err := f.Verify(t.Context(), request())
			if e, ok := errors.AsType[*facilitator.Error](err); !ok || v.Valid || e.Code != facilitator.CodeInvalidAnswer {
				t.Errorf("%d to %q: verify %+v, %v", status, to, v, err)
			}
			if got := f.Settle(t.Context(), request()); got.Outcome != facilitator.Unknown {
				t.Errorf("%d to %q: settle %+v", status, to, got)
			}
			_, err = f.Supported(t.Context())
			if moved, ok := errors.AsType[*facilitator.MovedError](err); !ok || moved.Status != status {
				t.Errorf("%d to %q: supported %v", status, to, err)
			}
			if n := s.hits.Load(); n != 3 {
				t.Errorf("%d to %q: asked %d times, want 3", status, to, n)
			}
			text := logText(logs) + fmt.Sprint(err)
			if strings.HasPrefix(to, "http") && !strings.Contains(text, target) {
				t.Errorf("%d: the log does not name the target: %s", status, text)
			}
			if strings.Contains(text, "canary") {
				t.Errorf("%d: the log says too much: %s", status, text)
			}
		}
	}
	if n := elsewhere.hits.Load(); n != 0 {
		t.Errorf("the target was asked %d times", n)
	}
}

// TestRedirectNamesTheNewAddress: the error has what is to be written into the config, and
// nothing else of where a redirect leads.
func TestRedirectNamesTheNewAddress(t *testing.T) {
	for to, want := range map[string]string{
		"https://www.x402.org/facilitator/supported":                      "https://www.x402.org/facilitator",
		"https://new.example/supported":                                   "https://new.example",
		"https://new.example/supported?key=canary":                        "https://new.example",
		"https://user:canary@new.example/v2/supported":                    "https://new.example/v2",
		"https://new.example/login/canary":                                "https://new.example",
		"https://new.example/canary-token/supported":                      "https://new.example/[hidden]",
		"https://new.example/" + strings.Repeat("ab/", 999) + "supported": "https:[long]",
	} {
		f, _ := provision(t, &Facilitator{
			URL:  serve(t, &fixed{status: 308, header: http.Header{"Location": {to}}}),
			Auth: &Auth{Type: "bearer", Token: "canary-token"},
		})
		_, err := f.Supported(t.Context())
		moved, ok := errors.AsType[*facilitator.MovedError](err)
		if !ok || moved.To != want || strings.Contains(err.Error(), "canary") {
			t.Errorf("%.80s: %v", to, err)
		}
	}
}

// Settles run side by side over connections that are kept.
func TestParallelSettlesReuseConnections(t *testing.T) {
	const parallel = 64
	var accepted atomic.Int32
	var together sync.WaitGroup
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		together.Done()
		together.Wait() // so that each needs a connection of its own
		_, _ = io.WriteString(w, settledBody())
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			accepted.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	f := at(t, s.URL)
	round := func() {
		together.Add(parallel)
		var wg sync.WaitGroup
		for range parallel {
			wg.Go(func() {
				if got := f.Settle(context.Background(), request()); got.Outcome != facilitator.Settled {
					t.Errorf("got %+v", got)
				}
			})
		}
		wg.Wait()
	}
	round()
	first := accepted.Load()
	if first > parallel+8 {
		t.Errorf("%d connections for %d settles", first, parallel)
	}
	round()
	if more := accepted.Load() - first; more > 3 {
		t.Errorf("the second round opened %d connections, want them reused", more)
	}
}
