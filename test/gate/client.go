package gate

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Protocols are the ways to speak to a site.
var Protocols = []string{"h1", "h1s", "h2c", "h2", "h3"}

// ClientTLS trusts the world's certificates: who the server is is not what is
// tested.
func ClientTLS() *tls.Config {
	return &tls.Config{ServerName: Host, InsecureSkipVerify: true} //nolint:gosec // loopback
}

// Transport is a client of one site for one protocol, which asks for nothing
// that the request does not say.
func (s Site) Transport(t testing.TB, protocol string) http.RoundTripper {
	t.Helper()
	if protocol == "h3" {
		tr := &http3.Transport{
			TLSClientConfig:    ClientTLS(),
			DisableCompression: true,
			Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
				return quic.DialAddrEarly(ctx, s.TLS, tc, qc)
			},
		}
		t.Cleanup(func() { _ = tr.Close() })
		return tr
	}
	address := s.Plain
	var only http.Protocols
	switch protocol {
	case "h1":
		only.SetHTTP1(true)
	case "h1s":
		only.SetHTTP1(true)
		address = s.TLS
	case "h2c":
		only.SetUnencryptedHTTP2(true)
	case "h2":
		only.SetHTTP2(true)
		address = s.TLS
	default:
		t.Fatal(protocol)
	}
	tr := &http.Transport{
		TLSClientConfig:    ClientTLS(),
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

// Client speaks one protocol with one site.
type Client struct {
	T        testing.TB
	Protocol string
	http.RoundTripper
}

// Client is one that speaks a protocol with the site.
func (s Site) Client(t testing.TB, protocol string) *Client {
	t.Helper()
	return &Client{t, protocol, s.Transport(t, protocol)}
}

// Client is the same for a whole test, which saves handshakes.
func (w *Twins) Client(t testing.TB, s Site, protocol string) *Client {
	key := s.Plain + protocol
	if w.transports[key] == nil {
		w.transports[key] = s.Transport(w.whole, protocol)
	}
	return &Client{t, protocol, w.transports[key]}
}

// Start sends a request and returns when the header is there.
func (c *Client) Start(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if c.Protocol != "h1" && c.Protocol != "h2c" {
		r.URL.Scheme = "https"
	}
	r.URL.Host = Host
	if r.Host == "" {
		r.Host = Host
	}
	return c.RoundTrip(r)
}

// Send sends a request and reads the answer to its end.
func (c *Client) Send(r *http.Request) Answer {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	res, err := c.Start(r.WithContext(ctx))
	if err != nil {
		c.T.Fatalf("%s %s %s: %v", c.Protocol, r.Method, r.URL, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.T.Fatalf("%s %s %s: reading the answer: %v", c.Protocol, r.Method, r.URL, err)
	}
	return Answer{Response: res, Text: string(body)}
}

// Offer asks what a request costs, without its body.
func (c *Client) Offer(r *http.Request) x402.Requirement {
	c.T.Helper()
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = nil, 0
	r.Header.Del("Expect")
	res := c.Send(r)
	if res.StatusCode != http.StatusPaymentRequired {
		c.T.Fatalf("unpaid %s %s: want 402, got %v", r.Method, r.URL, res)
	}
	challenge, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired))
	if err != nil || len(challenge.Accepts) == 0 {
		c.T.Fatalf("challenge of %s %s: %v", r.Method, r.URL, err)
	}
	return challenge.Accepts[0]
}

// Paying is the request with a payment for it.
func (c *Client) Paying(r *http.Request) *http.Request {
	c.T.Helper()
	s := Sign(c.T, c.Offer(r)).V2(c.T)
	r = r.Clone(r.Context())
	r.Header.Set("PAYMENT-SIGNATURE", s)
	return r
}
