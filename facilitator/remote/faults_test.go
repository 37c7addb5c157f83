package remote

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// The answers that the scripts below give.
const (
	head     = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
	pressYes = `{"isValid":true}`
)

func settledBody() string {
	return `{"success":true,"transaction":"` + tx + `",` + netw + `}`
}

// After a settle was sent, whatever the network does, nobody knows. Threats 29,
// 36, 44.
func TestSettleFaultsAfterSendingAreUnknown(t *testing.T) {
	for name, handle := range map[string]func(net.Conn){
		"reset before the headers": func(c net.Conn) { readRequest(c); reset(c) },
		"close before the headers": func(c net.Conn) { readRequest(c); _ = c.Close() },
		"reset after the headers": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, head+"200\r\n\r\n")
			reset(c)
		},
		"close inside the body": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, head+"500\r\n\r\n"+settledBody())
			_ = c.Close()
		},
		"broken chunks": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"+settledBody())
			_ = c.Close()
		},
		"no HTTP at all": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.9\r\n")
			_ = c.Close()
		},
		"headers without end": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 2*maxHeaderBytes))
			_ = c.Close()
		},
		"reset in the middle of the request": func(c net.Conn) {
			_, _ = io.CopyN(io.Discard, c, 40)
			reset(c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			url, accepted := raw(t, handle)
			got := at(t, url).Settle(t.Context(), request())
			if got.Outcome != facilitator.Unknown || got.Reason != "settlement_pending" {
				t.Errorf("got %+v, want unknown", got)
			}
			if n := accepted.Load(); n != 1 {
				t.Errorf("asked %d times, want once", n)
			}
		})
	}
}

// Hanging and dripping end with the context, and not before it.
func TestSettleGivesUpWithItsContext(t *testing.T) {
	for name, handle := range map[string]func(net.Conn){
		"hang": func(c net.Conn) { readRequest(c) },
		"drip": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, head+"60000\r\n\r\n")
			for range 200 {
				if _, err := io.WriteString(c, " "); err != nil {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := raw(t, handle)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			start := time.Now()
			got := at(t, url).Settle(ctx, request())
			if got.Outcome != facilitator.Unknown {
				t.Errorf("got %+v, want unknown", got)
			}
			if took := time.Since(start); took > 800*time.Millisecond {
				t.Errorf("took %s", took)
			}
		})
	}
}

// An endless answer is cut off, and not read to its end.
func TestEndlessAnswerIsCutOff(t *testing.T) {
	var written atomic.Int64
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			n, err := io.WriteString(w, strings.Repeat(" ", 32<<10))
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	}))
	f := at(t, url)
	if got := f.Settle(t.Context(), request()); got.Outcome != facilitator.Unknown {
		t.Errorf("settle: %+v", got)
	}
	if v, err := f.Verify(t.Context(), request()); err == nil || v.Valid {
		t.Errorf("verify: %+v", v)
	}
	if n := written.Load(); n > 64<<20 {
		t.Errorf("the server got rid of %d bytes", n)
	}
}

func TestVerifyFaultsAreNoAnswer(t *testing.T) {
	for name, handle := range map[string]func(net.Conn){
		"reset before the headers": func(c net.Conn) { readRequest(c); reset(c) },
		"reset after the headers": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, head+"200\r\n\r\n")
			reset(c)
		},
		"answer without its end": func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, head+"100\r\n\r\n"+pressYes)
			_ = c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := raw(t, handle)
			v, err := at(t, url).Verify(t.Context(), request())
			if e, ok := errors.AsType[*facilitator.Error](err); !ok || v.Valid || e.Code != facilitator.CodeUnavailable {
				t.Errorf("got %+v, %v", v, err)
			}
		})
	}
}

// What was certainly not sent may be sent elsewhere.
func TestSettleUnsent(t *testing.T) {
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + refusing.Addr().String()
	_ = refusing.Close()

	untrusted := httptest.NewUnstartedServer(&fixed{status: 200, body: settledBody()})
	untrusted.Config.ErrorLog = nil
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)

	noTLS, _ := raw(t, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.0 400 Bad Request\r\n\r\n"); _ = c.Close() })
	resets, _ := raw(t, reset)

	for name, url := range map[string]string{
		"connection refused":     nobody,
		"certificate untrusted":  untrusted.URL,
		"no TLS there":           strings.Replace(noTLS, "http:", "https:", 1),
		"reset in the handshake": strings.Replace(resets, "http:", "https:", 1),
		"no such host":           "https://facilitator.invalid",
	} {
		t.Run(name, func(t *testing.T) {
			f := at(t, url)
			if got := f.Settle(t.Context(), request()); got.Outcome != facilitator.Unsent || got.Detail == "" {
				t.Errorf("got %+v, want unsent", got)
			}
			if _, err := f.Verify(t.Context(), request()); err == nil {
				t.Error("verify: no error")
			}
		})
	}

	t.Run("context already over", func(t *testing.T) {
		s := &fixed{status: 200, body: settledBody()}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got := at(t, serve(t, s)).Settle(ctx, request()); got.Outcome != facilitator.Unsent {
			t.Errorf("got %+v, want unsent", got)
		}
		if n := s.hits.Load(); n != 0 {
			t.Errorf("asked %d times", n)
		}
	})
	t.Run("no token can be made", func(t *testing.T) {
		s := &fixed{status: 200, body: settledBody()}
		f := at(t, serve(t, s))
		f.auth = failing{}
		if got := f.Settle(t.Context(), request()); got.Outcome != facilitator.Unsent {
			t.Errorf("got %+v, want unsent", got)
		}
		if n := s.hits.Load(); n != 0 {
			t.Errorf("asked %d times", n)
		}
	})
	t.Run("no request can be made", func(t *testing.T) {
		r := request()
		r.Payment.Raw = nil
		if got := at(t, nobody).Settle(t.Context(), r); got.Outcome != facilitator.Unsent {
			t.Errorf("got %+v, want unsent", got)
		}
	})
	t.Run("not provisioned", func(t *testing.T) {
		if got := new(Facilitator).Settle(t.Context(), request()); got.Outcome != facilitator.Unsent {
			t.Errorf("got %+v, want unsent", got)
		}
	})
}

// failing cannot make credentials.
type failing struct{}

func (failing) authorize(*http.Request) error { return errors.New("no entropy") }
func (failing) secrets() []string             { return nil }

// A handshake that never ends is given up after connectTimeout, and is unsent.
func TestSettleUnsentWhenTheHandshakeHangs(t *testing.T) {
	url, _ := raw(t, func(net.Conn) {})
	f := at(t, strings.Replace(url, "http:", "https:", 1))
	f.shared.transport.TLSHandshakeTimeout = 50 * time.Millisecond
	if got := f.Settle(t.Context(), request()); got.Outcome != facilitator.Unsent {
		t.Errorf("got %+v, want unsent", got)
	}
}

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
				body = pressYes
			}
			url, _ := raw(t, func(c net.Conn) {
				first := conns.Add(1) == 1
				for n := 1; readRequest(c); n++ {
					requests.Add(1)
					if first && n == 2 {
						_ = c.Close()
						return
					}
					_, _ = io.WriteString(c, head+itoa(len(body))+"\r\n\r\n"+body)
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

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
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
			if _, err := f.Supported(t.Context()); err == nil {
				t.Errorf("%d to %q: supported without error", status, to)
			}
			if n := s.hits.Load(); n != 3 {
				t.Errorf("%d to %q: asked %d times, want 3", status, to, n)
			}
			text := logText(logs)
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
