package protocols

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// relay stands between a QUIC client and a server, and can hold back the packets
// with which the client ends its handshake.
type relay struct {
	near, far net.PacketConn
	server    net.Addr

	mu     sync.Mutex
	client net.Addr
	hold   bool
	sent   int      // bytes of early data
	held   [][]byte // on the way to the server
	back   [][]byte // on the way to the client, which must not see them before it has sent its early data
	open   bool     // for them
}

// earlySize is how much early data at least is waited for.
const earlySize = 3000

func newRelay(t *testing.T, server string) *relay {
	t.Helper()
	listen := func() net.PacketConn {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	addr, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{near: listen(), far: listen(), server: addr}
	go func() {
		for b := make([]byte, 1<<16); ; {
			n, from, err := r.near.ReadFrom(b)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.client = from
			switch early, zeroRTT := early(b[:n]); {
			case r.hold && !early:
				r.held = append(r.held, bytes.Clone(b[:n]))
			default:
				_, _ = r.far.WriteTo(b[:n], r.server)
				if before := r.sent; zeroRTT {
					if r.sent += n; before < earlySize && r.sent >= earlySize {
						time.AfterFunc(100*time.Millisecond, r.answer) // the rest follows at once
					}
				}
			}
			r.mu.Unlock()
		}
	}()
	go func() {
		for b := make([]byte, 1<<16); ; {
			n, _, err := r.far.ReadFrom(b)
			if err != nil {
				return
			}
			r.mu.Lock()
			if r.hold && !r.open {
				r.back = append(r.back, bytes.Clone(b[:n]))
			} else {
				_, _ = r.near.WriteTo(b[:n], r.client)
			}
			r.mu.Unlock()
		}
	}()
	return r
}

// answer lets the client hear the server.
func (r *relay) answer() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = true
	for _, b := range r.back {
		_, _ = r.near.WriteTo(b, r.client)
	}
	r.back = nil
}

func (r *relay) holding(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = on
	for _, b := range r.held {
		_, _ = r.far.WriteTo(b, r.server)
	}
	r.held = nil
}

// early says whether a datagram holds only what comes before a handshake is
// complete, Initial and 0-RTT packets, and whether it holds the latter (RFC 9000,
// 17.2).
func early(b []byte) (early, zeroRTT bool) {
	for len(b) > 0 {
		if b[0]&0x80 == 0 || b[0]>>4&3 > 1 {
			return false, zeroRTT
		}
		initial := b[0]>>4&3 == 0
		zeroRTT = zeroRTT || !initial
		b = b[5:]
		for range 2 { // connection ids
			b = b[1+int(b[0]):]
		}
		if initial {
			n, size, err := quicvarint.Parse(b)
			if err != nil {
				return false, zeroRTT
			}
			b = b[size+int(n):]
		}
		n, size, err := quicvarint.Parse(b)
		if err != nil || size+int(n) > len(b) {
			return false, zeroRTT
		}
		b = b[size+int(n):]
	}
	return true, zeroRTT
}

// TestEarlyData: a payment in TLS early data, which anybody who saw it can send
// again, is refused with 425 and bought with after the handshake (RFC 8470).
func TestEarlyData(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price /paid $0.01"})
	conf := gate.ClientTLS()
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	connect := func() (*gate.Client, *relay) {
		relay := newRelay(t, w.Gated.TLS)
		tr := &http3.Transport{
			TLSClientConfig: conf, DisableCompression: true,
			Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
				return quic.DialAddrEarly(ctx, relay.near.LocalAddr().String(), tc, qc)
			},
		}
		t.Cleanup(func() { _ = tr.Close() })
		return &gate.Client{T: t, Protocol: "h3", RoundTripper: tr}, relay
	}
	// The first connection brings the ticket for the others.
	first, _ := connect()
	paid := first.Paying(w.Request(http.MethodGet, "/paid"))
	w.UntilThat("the ticket is there", func() bool {
		_, ok := conf.ClientSessionCache.Get(gate.Host)
		return ok
	})
	early := func(r *http.Request) (gate.Answer, *gate.Client) {
		c, relay := connect()
		relay.holding(true)
		defer relay.holding(false)
		r = r.Clone(r.Context())
		r.Method = http3.MethodGet0RTT
		r.Header.Set("X-Pad", text(2*earlySize))
		return c.Send(r), c
	}
	res, c := early(paid)
	if res.StatusCode != http.StatusTooEarly || res.Header.Get(x402.HeaderPaymentResponse) != "" {
		t.Fatalf("in early data: %v", res)
	}
	if w.Upstream.Hits.Load() != 0 || w.Facilitator.Calls() != 0 {
		t.Fatalf("%d hits, the facilitator was asked %d times", w.Upstream.Hits.Load(), w.Facilitator.Calls())
	}
	if res := c.Send(paid); res.StatusCode != http.StatusOK || res.Text != gate.Goods {
		t.Errorf("after the handshake: %v", res)
	}
	// What needs no payment, or has none, may come early.
	if res, _ := early(w.Request(http.MethodGet, "/free")); res.StatusCode != http.StatusOK {
		t.Errorf("a free page in early data: %v", res)
	}
	if res, _ := early(w.Request(http.MethodGet, "/paid")); res.StatusCode != http.StatusPaymentRequired {
		t.Errorf("unpaid in early data: %v", res)
	}

	// A server before us has said the same with a header.
	for _, protocol := range gate.Protocols {
		c := w.Gated.Client(t, protocol)
		paid := c.Paying(w.Request(http.MethodGet, "/paid"))
		// RFC 8470, 5.1: several values, or others, stand for 1.
		for _, values := range [][]string{{"1"}, {"0", "1"}, {"1, 1"}, {"?1"}} {
			again := paid.Clone(paid.Context())
			again.Header["Early-Data"] = values
			if res := c.Send(again); res.StatusCode != http.StatusTooEarly {
				t.Errorf("%s, %q: %v", protocol, values, res)
			}
		}
		if res := c.Send(paid); res.StatusCode != http.StatusOK {
			t.Errorf("%s: %v", protocol, res)
		}
	}
}
