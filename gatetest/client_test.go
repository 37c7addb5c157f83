package gatetest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// protocols are the ways to speak to a site.
var protocols = []string{"h1", "h1s", "h2c", "h2", "h3"}

// clientTLS trusts the world's certificates: who the server is is not what is
// tested.
func clientTLS() *tls.Config {
	return &tls.Config{ServerName: host, InsecureSkipVerify: true} //nolint:gosec // loopback
}

// transport is a client of one site for one protocol, which asks for nothing
// that the request does not say.
func (s site) transport(t testing.TB, protocol string) http.RoundTripper {
	t.Helper()
	if protocol == "h3" {
		tr := &http3.Transport{
			TLSClientConfig:    clientTLS(),
			DisableCompression: true,
			Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
				return quic.DialAddrEarly(ctx, s.tls, tc, qc)
			},
		}
		t.Cleanup(func() { _ = tr.Close() })
		return tr
	}
	address := s.plain
	var only http.Protocols
	switch protocol {
	case "h1":
		only.SetHTTP1(true)
	case "h1s":
		only.SetHTTP1(true)
		address = s.tls
	case "h2c":
		only.SetUnencryptedHTTP2(true)
	case "h2":
		only.SetHTTP2(true)
		address = s.tls
	default:
		t.Fatal(protocol)
	}
	tr := &http.Transport{
		TLSClientConfig:    clientTLS(),
		Protocols:          &only,
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		},
		ExpectContinueTimeout: time.Minute,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// client speaks one protocol with one site.
type client struct {
	t         testing.TB
	protocol  string
	transport http.RoundTripper
}

func (s site) client(t testing.TB, protocol string) *client {
	t.Helper()
	return &client{t, protocol, s.transport(t, protocol)}
}

// client is the same for a whole test, which saves handshakes.
func (w *world) client(t testing.TB, s site, protocol string) *client {
	key := s.plain + protocol
	if w.transports[key] == nil {
		w.transports[key] = s.transport(w.whole, protocol)
	}
	return &client{t, protocol, w.transports[key]}
}

// start sends a request and returns when the header is there.
func (c *client) start(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if c.protocol != "h1" && c.protocol != "h2c" {
		r.URL.Scheme = "https"
	}
	r.URL.Host = host
	if r.Host == "" {
		r.Host = host
	}
	return c.transport.RoundTrip(r)
}

// answer is an answer, read to its end.
type answer struct {
	*http.Response
	body string
}

func (a answer) String() string {
	return fmt.Sprintf("%s %s\n%v\n%.1000q\ntrailers %v", a.Proto, a.Status, a.Header, a.body, a.Trailer)
}

func (c *client) send(r *http.Request) answer {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	res, err := c.start(r.WithContext(ctx))
	if err != nil {
		c.t.Fatalf("%s %s %s: %v", c.protocol, r.Method, r.URL, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatalf("%s %s %s: reading the answer: %v", c.protocol, r.Method, r.URL, err)
	}
	return answer{res, string(body)}
}
