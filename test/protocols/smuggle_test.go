package protocols

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// smuggle asks a site for an upgrade and, if it gets one, for a priced path
// behind it. It returns the answers that came.
func smuggle(t *testing.T, address, path, upgrade, connection string, header ...string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: %s\r\n%sHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", path, gate.Host, connection, upgrade)
	for i := 0; i < len(header); i += 2 {
		fmt.Fprintf(conn, "%s: %s\r\n", header[i], header[i+1])
	}
	fmt.Fprint(conn, "\r\n")
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(res.Body, res.ContentLength))
		return fmt.Sprint(res.StatusCode, " ", string(body))
	}
	fmt.Fprintf(conn, "GET /paid HTTP/1.1\r\nHost: %s\r\n\r\n", gate.Host)
	line, _ := in.ReadString('\n')
	return "101 " + line
}

// TestNoHTTPInATunnel: an upstream that changes to another version of HTTP would
// take any request through the tunnel, past the gate.
func TestNoHTTPInATunnel(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{Prices: "price /paid $1\nprice /cheap $0.01"})
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		for name := range strings.SplitSeq(r.Header.Get("Upgrade"), ",") {
			name = strings.TrimSpace(name)
			if name == "" || name == "websocket" {
				continue
			}
			conn, brw, err := http.NewResponseController(rw).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprintf(brw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
			_ = brw.Flush()
			if asked, err := http.ReadRequest(brw.Reader); err == nil {
				fmt.Fprintf(conn, "the goods of %s\n", asked.URL)
			}
			return
		}
		_, _ = fmt.Fprintf(rw, "%q %q %q", r.Header["Connection"], r.Header["Upgrade"], r.Header["Http2-Settings"])
	})
	c := w.Gated.Client(t, "h1")
	for _, tc := range []struct{ upgrade, connection string }{
		{"Upgrade: h2c\r\n", "Upgrade, HTTP2-Settings"},
		{"Upgrade: H2C\r\n", "upgrade"},
		{"Upgrade: h2\r\n", "Upgrade"},
		{"Upgrade: TLS/1.0, HTTP/1.1\r\n", "Upgrade"},
		{"Upgrade: HTTP/2.0\r\n", "Upgrade"},
		{"Upgrade: h2c\r\nUpgrade: websocket\r\n", "Upgrade, HTTP2-Settings"},
	} {
		if got := smuggle(t, w.Open.Plain, "/free", tc.upgrade, tc.connection); !strings.HasPrefix(got, "101 the goods of /paid") {
			t.Errorf("%q without the gate: %s", tc.upgrade, got)
		}
		if got := smuggle(t, w.Gated.Plain, "/free", tc.upgrade, tc.connection); !strings.HasPrefix(got, "200 ") || strings.Contains(strings.ToLower(got), "h2") {
			t.Errorf("%q: %s", tc.upgrade, got)
		}
		pay := gate.Sign(t, c.Offer(w.Request(http.MethodGet, "/cheap"))).V2(t)
		if got := smuggle(t, w.Gated.Plain, "/cheap", tc.upgrade, tc.connection, "PAYMENT-SIGNATURE", pay); strings.HasPrefix(got, "101 ") || !strings.Contains(tc.upgrade, "websocket") && !strings.HasPrefix(got, "200 ") {
			t.Errorf("%q, paid: %s", tc.upgrade, got)
		}
	}
	// Other tunnels carry no requests for a server of HTTP, and pass.
	for _, name := range []string{"tcp", "SPDY/3.1", "my-protocol"} {
		if got := smuggle(t, w.Gated.Plain, "/free", "Upgrade: "+name+"\r\n", "Upgrade"); !strings.HasPrefix(got, "101 ") {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := smuggle(t, w.Gated.Plain, "/free", "Upgrade: websocket, h2c\r\n", "Upgrade"); got != `200 ["Upgrade"] ["websocket"] []` {
		t.Errorf("of two: %s", got)
	}
}
