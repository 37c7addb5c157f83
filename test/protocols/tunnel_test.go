package protocols

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// tunnel is a WebSocket, as far as bytes are concerned.
type tunnel struct {
	res *http.Response
	in  *bufio.Reader
	out io.Writer
	end func()
}

// echoUpgrade is an upstream that echoes lines.
func echoUpgrade(rw http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "websocket" {
		rw.WriteHeader(http.StatusUpgradeRequired)
		return
	}
	conn, brw, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprint(brw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\nX-Upstream: yes\r\n\r\n")
	_ = brw.Flush()
	_, _ = io.Copy(conn, brw)
}

// openTunnel asks for a WebSocket.
func openTunnel(t *testing.T, s gate.Site, protocol string, header http.Header) tunnel {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	header.Set("Sec-WebSocket-Version", "13")
	header.Set("Sec-WebSocket-Protocol", "chat")
	if protocol == "h1" || protocol == "h1s" {
		var conn net.Conn
		var err error
		if protocol == "h1" {
			conn, err = new(net.Dialer).DialContext(ctx, "tcp", s.Plain)
		} else {
			conn, err = (&tls.Dialer{Config: gate.ClientTLS()}).DialContext(ctx, "tcp", s.TLS)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		header.Set("Connection", "Upgrade")
		header.Set("Upgrade", "websocket")
		header.Set("Sec-WebSocket-Key", "eA==")
		fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\n", gate.Host)
		_ = header.Write(conn)
		fmt.Fprint(conn, "\r\n")
		in := bufio.NewReader(conn)
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		return tunnel{res, in, conn, func() { _ = conn.Close() }}
	}
	// RFC 8441 and RFC 9220.
	body, out := io.Pipe()
	r := (&http.Request{Method: http.MethodConnect, Host: gate.Host, Header: header, Body: body, ContentLength: -1, URL: &url.URL{Scheme: "https", Host: gate.Host, Path: "/ws"}}).WithContext(ctx)
	var transport http.RoundTripper
	switch protocol {
	case "h2", "h2c":
		header.Set(":protocol", "websocket")
		tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
			if protocol == "h2c" {
				return new(net.Dialer).DialContext(ctx, "tcp", s.Plain)
			}
			c := gate.ClientTLS()
			c.NextProtos = []string{"h2"}
			return (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", s.TLS)
		}}
		if protocol == "h2c" {
			r.URL.Scheme = "http"
		}
		t.Cleanup(tr.CloseIdleConnections)
		transport = tr
	case "h3":
		r.Proto = "websocket"
		transport = s.Transport(t, "h3")
	}
	res, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatalf("%s: %v", protocol, err)
	}
	return tunnel{res, bufio.NewReader(res.Body), out, func() {
		_ = out.Close()
		_ = res.Body.Close()
		cancel()
	}}
}

// TestTunnels: a WebSocket is paid before it opens, in HTTP/1.1 by Upgrade and in
// HTTP/2 and 3 by extended CONNECT, and is then what it is without the gate.
func TestTunnels(t *testing.T) {
	for _, protocol := range gate.Protocols {
		t.Run(protocol, func(t *testing.T) {
			w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price /ws $0.01 {\n settle on_success\n}"})
			w.Upstream.On(echoUpgrade)
			open := openTunnel(t, w.Open, protocol, http.Header{})
			hits := w.Upstream.Hits.Load()

			unpaid := openTunnel(t, w.Gated, protocol, http.Header{})
			unpaid.end()
			challenge, err := x402.DecodeChallenge(unpaid.res.Header.Get(x402.HeaderPaymentRequired))
			if unpaid.res.StatusCode != http.StatusPaymentRequired || err != nil || w.Upstream.Hits.Load() != hits {
				t.Fatalf("unpaid: %d %v, %v, %d hits", unpaid.res.StatusCode, unpaid.res.Header, err, w.Upstream.Hits.Load()-hits)
			}
			pay := func() http.Header {
				return http.Header{"Payment-Signature": {gate.Sign(t, challenge.Accepts[0]).V2(t)}}
			}

			w.Facilitator.OnSettle(gate.RefusedSettle)
			refused := openTunnel(t, w.Gated, protocol, pay())
			refused.end()
			if refused.res.StatusCode != http.StatusPaymentRequired || w.Upstream.Hits.Load() != hits {
				t.Fatalf("not settled: %d %v, %d hits", refused.res.StatusCode, refused.res.Header, w.Upstream.Hits.Load()-hits)
			}
			w.Facilitator.OnSettle(nil)

			settled := w.Facilitator.Settled.Load()
			paid := openTunnel(t, w.Gated, protocol, pay())
			receipt, err := x402.DecodeReceipt(paid.res.Header.Get(x402.HeaderPaymentResponse))
			if err != nil || !receipt.Success || w.Facilitator.Settled.Load() != settled+1 {
				t.Fatalf("paid: %d %v, %v", paid.res.StatusCode, paid.res.Header, err)
			}
			drop := append([]string{"Date", "Alt-Svc"}, touchedAnswer...)
			if a, b := fmt.Sprint(open.res.Status, without(open.res.Header, drop)), fmt.Sprint(paid.res.Status, without(paid.res.Header, drop)); a != b {
				t.Errorf("without the gate:\n%s\nwith it:\n%s", a, b)
			}
			for _, tunnel := range []tunnel{open, paid} {
				for i := range 3 {
					fmt.Fprintf(tunnel.out, "line %d\n", i)
					if line, err := tunnel.in.ReadString('\n'); err != nil || line != fmt.Sprintf("line %d\n", i) {
						t.Fatalf("%q %v", line, err)
					}
				}
				tunnel.end()
			}
			w.UntilThat("the purchase is delivered", func() bool { return w.Logged(`"outcome":"delivered"`) == 1 })
			// A Caddy (2.11.9) that stops says goodbye to tunnels beside what still
			// writes to them, which the race detector sees.
			w.UntilThat("both tunnels have ended", func() bool { return w.Logged(`"msg":"connection closed"`) == 2 })
		})
	}
}

// TestPlainConnect: CONNECT without a protocol asks for a proxy; no such request
// passes a price unpaid.
func TestPlainConnect(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{})
	c := &rawClient{t: t, address: w.Gated.Plain}
	defer c.close()
	for _, target := range []string{gate.Host + ":80", "/ws", "*", w.Upstream.Address()} {
		res := c.send(http.MethodConnect, target, "Connection", "close")
		// What names another host is no site of this Caddy: an empty 200.
		if w.Upstream.Hits.Load() != 0 || res.Text != "" && res.StatusCode < 400 {
			t.Errorf("CONNECT %s: %v, %d hits", target, res, w.Upstream.Hits.Load())
		}
		c.close()
	}
}
