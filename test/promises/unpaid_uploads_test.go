package promises

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// Tests of uploads that are refused: whoever sends them can read why, and cannot hold us.

// lingers is less than how long a server of net/http, ours or any, leaves the connection of
// a refused upload half open. Who comes to reading the answer later than that loses it with
// any of them: that is a slow machine, and the try counts for nothing.
const lingers = 400 * time.Millisecond

// Clients read the answer to an upload, whatever its length and whether or not they say
// it. A connection that is closed under an upload is reset, and the answer is lost.
func TestRefusedUploadReadsWhy(t *testing.T) {
	w := gate.NewTwins(t, gate.TwinsConfig{})
	w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"insufficient_funds"}`))
	body := make([]byte, 100<<20)
	for _, protocol := range []string{"h1", "h1s", "h2"} {
		for _, kind := range []struct {
			name        string
			paid, close bool
			chunked     bool
		}{{name: "with a length"}, {name: "without", chunked: true}, {name: "with a payment", paid: true}, {name: "on a connection that ends", close: true}} {
			for _, size := range []int{100 << 10, 300 << 10, 1 << 20, 10 << 20, 100 << 20} {
				t.Run(fmt.Sprintf("%s %s, %d KiB", protocol, kind.name, size>>10), func(t *testing.T) {
					w.T = t
					for try := range 10 {
						r := w.Request(http.MethodPost, "/x")
						if kind.paid {
							r = w.Client(t, w.Gated, protocol).Paying(r)
						}
						r.Body, r.ContentLength, r.Close = io.NopCloser(bytes.NewReader(body[:size])), int64(size), kind.close && protocol != "h2"
						if kind.chunked {
							r.ContentLength = -1
						}
						since := time.Now()
						status, err := upload(w.Client(t, w.Gated, protocol), r)
						if err != nil && time.Since(since) > lingers {
							t.Logf("try %d came too late: %v", try, err)
							continue
						}
						// Who tries to pay so often in vain is put off.
						if err != nil || status != 402 && (!kind.paid || status != 429) {
							t.Fatalf("try %d: %d, %v", try, status, err)
						}
					}
				})
			}
		}
	}
	if n := w.Upstream.Hits.Load(); n != 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// upload sends a request and reads the answer to its end.
func upload(c *gate.Client, r *http.Request) (status int, err error) {
	res, err := c.Start(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// A client that sends everything before it reads anything reads the answer where its body is
// hardly longer than what a server reads of it.
func TestRefusedUploadIsReadAfterwards(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	for name, request := range map[string]string{
		"length":  "Content-Length: 307200\r\n\r\n",
		"chunked": "Transfer-Encoding: chunked\r\n\r\n4b000\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			w.T = t
			for try := range 5 {
				conn, host := w.Dial()
				_ = conn.(*net.TCPConn).SetWriteBuffer(8 << 10)
				since := time.Now()
				_, err := io.WriteString(conn, "POST /paid/x HTTP/1.1\r\nHost: "+host+"\r\n"+request)
				for sent := 0; err == nil && sent < 300<<10; sent += 1 << 10 {
					_, err = conn.Write(make([]byte, 1<<10))
				}
				if err != nil && time.Since(since) > lingers {
					continue
				}
				if err != nil {
					t.Fatalf("try %d: %v", try, err)
				}
				if res, body := readAnswer(t, conn); res.StatusCode != 402 {
					t.Errorf("%d %s", res.StatusCode, body)
				}
			}
		})
	}
	w.Counts(0, 0, 0)
}

// Whoever sends slowly, nothing, or for ever is answered at once, and let go soon: he may
// not hold a connection, and what he sends is not read for ever.
func TestRefusedUploadHoldsNothing(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	for _, g := range gate.Handlers(t) {
		g.ForTest().UploadGrace = 300 * time.Millisecond
	}
	for name, send := range map[string]func(conn net.Conn){
		"drops":    func(conn net.Conn) { sendUntilClosed(conn, make([]byte, 1), 10*time.Millisecond) },
		"nothing":  func(net.Conn) {},
		"for ever": func(conn net.Conn) { sendUntilClosed(conn, make([]byte, 1<<10), 0) },
	} {
		for _, length := range []string{"Content-Length: 1000000000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n", "Content-Length: 1000000000000\r\nExpect: 100-continue\r\n\r\n", "Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"} {
			t.Run(name+" "+strings.TrimSpace(length), func(t *testing.T) {
				w.T = t
				conn, host := w.Dial()
				if _, err := io.WriteString(conn, "POST /paid/x HTTP/1.1\r\nHost: "+host+"\r\n"+length); err != nil {
					t.Fatal(err)
				}
				if res, body := readAnswer(t, conn); res.StatusCode != 402 {
					t.Errorf("%d %s", res.StatusCode, body)
				}
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					send(conn)
				}()
				// The server closes: its end of the stream comes, or a reset.
				if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the connection is still there: %v", err)
				}
				<-sent
			})
		}
	}
	w.Counts(0, 0, 0)
}

// sendUntilClosed sends a part again and again, until the connection takes no more.
func sendUntilClosed(conn net.Conn, part []byte, pause time.Duration) {
	_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for {
		if _, err := conn.Write(part); err != nil {
			return
		}
		time.Sleep(pause)
	}
}

// An upstream may answer before it has read the order, and then nobody may know whether
// it is paid for. Its payer is told to come back, and what he still sends is the upstream's:
// it is no refused upload, which the gate would read and drop.
func TestUploadInDoubtReachesItsUpstream(t *testing.T) {
	w := gate.Prepare(t)
	got := make(chan string, 1)
	up := twoWayUpstream(t, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- string(b)
	})
	w.Load(strings.Replace(w.Caddyfile("price POST /act $0.01 {\n settle on_success\n}"), strings.TrimPrefix(w.Upstream.URL, "http://"), up, 1))
	w.Facilitator.OnSettle(w.Facilitator.Lost)
	conn, host := w.Dial()
	fmt.Fprintf(conn, "POST /act HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\nPAYMENT-SIGNATURE: %s\r\n\r\n3\r\nord\r\n", host, w.Sign(http.MethodPost, "/act", gate.NewPayer(t)).V2(t))
	b := make([]byte, 12)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "HTTP/1.1 503" {
		t.Fatalf("%q %v", b, err)
	}
	for range 50 {
		_, _ = io.WriteString(conn, "400\r\n"+strings.Repeat("x", 1<<10)+"\r\n")
		time.Sleep(time.Millisecond) // a read for each
	}
	_, _ = io.WriteString(conn, "0\r\n\r\n")
	if b := <-got; b != "ord"+strings.Repeat("x", 50<<10) {
		t.Errorf("the upstream got %d bytes", len(b))
	}
}
