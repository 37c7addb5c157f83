package remote

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// What was certainly not sent may be sent elsewhere.
func TestSettleUnsent(t *testing.T) {
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + refusing.Addr().String()
	_ = refusing.Close()

	untrusted := httptest.NewUnstartedServer(&fixed{status: 200, body: settledBody()})
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
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
			if got := f.Settle(t.Context(), request()); got.Outcome != facilitator.Unsent || !got.Unreached || got.Detail == "" {
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
