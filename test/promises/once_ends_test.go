package promises

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// stingy fetches over HTTP/2 with a window of so many bytes, resets the stream when it
// is used up, and returns what came.
func stingy(w *gate.World, path, payment string, window int) (status string, got int) {
	host := strings.TrimPrefix(w.URL, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		w.T.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	_, _ = io.WriteString(conn, http2.ClientPreface)
	f := http2.NewFramer(conn, conn)
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(window)}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20})
	_ = f.WriteWindowUpdate(0, 1<<20)
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", host}, {":path", path}, {"payment-signature", payment}} {
		_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true, EndStream: true})
	dec := hpack.NewDecoder(4096, func(h hpack.HeaderField) {
		if h.Name == ":status" {
			status = h.Value
		}
	})
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return status, got
		}
		switch fr := frame.(type) {
		case *http2.SettingsFrame:
			if !fr.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			_, _ = dec.Write(fr.HeaderBlockFragment())
			if fr.StreamEnded() {
				return status, got
			}
		case *http2.DataFrame:
			got += len(fr.Data())
			if fr.StreamEnded() {
				return status, got
			}
			if got >= window {
				_ = f.WriteRSTStream(1, http2.ErrCodeCancel)
				time.Sleep(50 * time.Millisecond)
				return status, got
			}
		}
	}
}

// HTTP/2 flow control: what a blocked Write has sent already is counted.
func TestFlowControlHidesNothing(t *testing.T) {
	for _, size := range []int{20_000, 45_000, 100_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := gate.Prepare(t)
			w.Load(strings.Replace(w.Caddyfile("price /paid/* $0.01 {\n settle first\n}"), "auto_https off", "auto_https off\nservers {\nprotocols h1 h2c\n}", 1))
			body := strings.Repeat("x", size)
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Length", fmt.Sprint(size))
				_, _ = io.WriteString(rw, body)
			})
			payment := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
			best, answers := 0, 0
			for _, window := range []int{35_000} {
				if window >= size {
					continue
				}
				for range 30 {
					status, got := stingy(w, "/paid/x", payment, window)
					if status == "409" { // in flight, perhaps
						time.Sleep(30 * time.Millisecond)
						continue
					}
					if status != "200" {
						break
					}
					answers++
					best = max(best, got)
				}
			}
			t.Logf("%d answers, the largest part %d of %d, %d transfers", answers, best, size, w.Facilitator.Transfers())
			if answers > 3 && best*10 > size {
				t.Errorf("%d answers of up to %d of %d bytes for %d transfers; the bound is 3", answers, best, size, w.Facilitator.Transfers())
			}
		})
	}
}

// An answer that is all in its header is a good part of it: who ends it has two more.
func TestHeaderIsAGoodPart(t *testing.T) {
	w := gate.New(t, "price /token $0.01")
	var given atomic.Int64
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Token", fmt.Sprint("token-", given.Add(1)))
		rw.WriteHeader(200)
		_ = http.NewResponseController(rw).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(300 * time.Millisecond):
		}
	})
	payment := w.Sign(http.MethodGet, "/token", gate.NewPayer(t)).V2(t)
	good := 0
	for range 30 {
		var text string
		w.Until(func() bool {
			conn, host := w.Dial()
			defer conn.Close()
			fmt.Fprintf(conn, "GET /token HTTP/1.1\r\nHost: %s\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, payment)
			b := make([]byte, 4096)
			n, _ := conn.Read(b)
			text = string(b[:n])
			return !strings.Contains(text, " 409 ") || strings.Contains(text, "unconfirmed")
		})
		if !strings.Contains(text, "token-") {
			t.Logf("%.200s", text)
			break
		}
		good++
	}
	if good > 3 {
		t.Errorf("%d tokens for %d transfers; the bound is 3", good, w.Facilitator.Transfers())
	}
}

// A verdict that is three seconds old does not stand for "unused": the payment may
// have been used elsewhere meanwhile, and then a stranger would fetch what is owed to
// its payer.
func TestOldVerdictRedeemsNothing(t *testing.T) {
	w := gate.Prepare(t)
	w.Load(gate.BehindProxy(w.Caddyfile("price /paid/* $0.01")))
	victim := gate.NewPayer(t)
	asked := w.Challenge(http.MethodGet, "/paid/b").Accepts[0]
	w.Upstream.On(gate.BreaksOff)
	_ = w.Get("/paid/b", "PAYMENT-SIGNATURE", victim.Sign(t, asked, time.Now()).V2(t), "X-Forwarded-For", here)
	w.Upstream.On(gate.Says(404, "no such page"))
	second := victim.Sign(t, asked, time.Now()).V2(t)
	w.Challenge(http.MethodGet, "/paid/a")
	res := w.Get("/paid/a", "PAYMENT-SIGNATURE", second, "X-Forwarded-For", here)
	t.Log("uncharged:", res.StatusCode)
	// Meanwhile it is used elsewhere, and so it can be read by everybody.
	w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"invalid_exact_evm_nonce_already_used"}`))
	w.Upstream.On(nil)
	res = w.Get("/paid/b", "PAYMENT-SIGNATURE", second, "X-Forwarded-For", elsewhere)
	t.Log(res.StatusCode, res.Text)
	if res.StatusCode == 200 {
		t.Errorf("a stranger has %q of the victim", res.Text)
	}
}

// An upstream gives up on a payer who reads most of an answer and then lets it wait: that
// is his doing. He has two more runs, as one who hangs up.
func TestWhoStallsUntilTheUpstreamGivesUpHasTwoMore(t *testing.T) {
	const size = 24 << 20
	var runs atomic.Int64
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		rw.Header().Set("Content-Length", strconv.Itoa(size))
		piece := bytes.Repeat([]byte("x"), 64<<10)
		for range size / len(piece) {
			if _, err := rw.Write(piece); err != nil {
				return
			}
		}
	}))
	up.Config.WriteTimeout = 1500 * time.Millisecond
	up.Start()
	t.Cleanup(up.Close)
	w := gate.Prepare(t)
	w.Upstream.Server = up
	w.Load(w.Caddyfile("price /big/* $0.01"))
	p := gate.NewPayer(t)
	asked := w.Challenge("GET", "/big/x").Accepts[0]
	for range 4 {
		conn, host := w.Dial()
		_ = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
		fmt.Fprintf(conn, "GET /big/x HTTP/1.1\r\nHost: %s\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, p.Sign(t, asked, time.Now()).V2(t))
		if _, err := io.CopyN(io.Discard, conn, size/2); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1600 * time.Millisecond)
		if n, err := io.Copy(io.Discard, conn); err != nil || n >= size/2 {
			t.Fatalf("the upstream has not given up: %d more bytes, %v", n, err)
		}
		conn.Close()
	}
	if runs.Load() != 4 || w.Facilitator.Transfers() != 2 {
		t.Errorf("%d runs, %d transfers", runs.Load(), w.Facilitator.Transfers())
	}
}

// A redirect that leaves the site gives a HEAD what it gives a GET.
func TestHeadOfARedirectIsDelivered(t *testing.T) {
	w := gate.New(t, "price /dl/* $0.01")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Location", fmt.Sprintf("https://bucket.example/claim?token=%d", w.Upstream.Hits.Load()))
		rw.WriteHeader(http.StatusFound)
	})
	p := gate.NewPayer(t)
	asked := w.Challenge("GET", "/dl/x").Accepts[0]
	for i := range 4 {
		res := w.Again(func() gate.Answer {
			return w.Do(w.Request("HEAD", "/dl/x", "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t)))
		})
		if res.Header.Get("Location") == "" || w.Facilitator.Transfers() != i+1 {
			t.Errorf("HEAD %d: %d, %d transfers", i, res.StatusCode, w.Facilitator.Transfers())
		}
	}
}

// What a line charges for is goods, whatever its status, and is given once.
func TestChargedStatusIsGivenOnce(t *testing.T) {
	for _, c := range []struct {
		method, line string
		status       int
	}{
		{"GET", "price /x/* $0.01 {\n charge 200 404\n}", 404},
		{"POST", "price POST /x/* $0.01 {\n settle on_success\n charge 200 422\n}", 422},
		{"POST", "price POST /x/* $0.01 {\n settle on_success\n charge 200 500\n}", 500},
	} {
		t.Run(fmt.Sprint(c.method, c.status), func(t *testing.T) {
			w := gate.New(t, c.line)
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				rw.WriteHeader(c.status)
				_, _ = fmt.Fprintf(rw, "charged answer %d", w.Upstream.Hits.Load())
			})
			p := gate.NewPayer(t)
			asked := w.Challenge(c.method, "/x/1").Accepts[0]
			for range 4 {
				res := w.Again(func() gate.Answer {
					return w.SendBody(t.Context(), c.method, "/x/1", p.Sign(t, asked, time.Now()).V2(t), "")
				})
				if res.StatusCode != c.status || !strings.HasPrefix(res.Text, "charged answer") {
					t.Errorf("%d %s", res.StatusCode, res.Text)
				}
			}
			if w.Upstream.Hits.Load() != 4 || w.Facilitator.Transfers() != 4 {
				t.Errorf("%d runs, %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
			}
		})
	}
}

// An upstream that acted and says so with a status that only its line charges for is not
// asked again: the payer who left fetches its answer.
func TestChargedActIsNotRepeated(t *testing.T) {
	w := gate.New(t, "price POST /x/* $0.01 {\n settle on_success\n charge 200 422\n}")
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(rw, "charged answer")
		_ = http.NewResponseController(rw).Flush()
		time.Sleep(100 * time.Millisecond)
		_, _ = io.WriteString(rw, strings.Repeat(".", 3000))
	})
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodPost, "/x/1").Accepts[0]
	w.Leaves(http.MethodPost, "/x/1", p.Sign(t, asked, time.Now()).V2(t), "{}")
	res := w.Again(func() gate.Answer {
		return w.SendBody(t.Context(), http.MethodPost, "/x/1", p.Sign(t, asked, time.Now()).V2(t), "{}")
	})
	if res.StatusCode != 422 || !strings.HasPrefix(res.Text, "charged answer") || w.Upstream.Hits.Load() != 1 || w.Facilitator.Transfers() != 1 {
		t.Errorf("%d %.40q, %d runs, %d transfers", res.StatusCode, res.Text, w.Upstream.Hits.Load(), w.Facilitator.Transfers())
	}
}

// A payment's heads are bounded, and leave runs for the GET that it has bought.
func TestHeadsLeaveTheGet(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	p := gate.NewPayer(t)
	asked := w.Challenge("GET", "/paid/x").Accepts[0]
	codes := map[int]int{}
	for range 22 {
		codes[w.Again(func() gate.Answer {
			return w.Do(w.Request("HEAD", "/paid/x", "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t)))
		}).StatusCode]++
	}
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t)), 200, "")
	if w.Facilitator.Transfers() != 1 || codes[200] != 10 || codes[409] != 12 {
		t.Error(w.Facilitator.Transfers(), "transfers,", codes)
	}
}
