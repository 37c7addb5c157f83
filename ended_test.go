package paywall_test

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
)

// stingy fetches over HTTP/2 with a window of so many bytes, resets the stream when it
// is used up, and returns what came.
func (w *world) stingy(path, payment string, window int) (status string, got int) {
	host := strings.TrimPrefix(w.gate, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		w.t.Fatal(err)
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

// HTTP/2 flow control: what a blocked Write has sent already is not counted.
func TestFlowControlHidesNothing(t *testing.T) {
	for _, size := range []int{20_000, 45_000, 100_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := prepareWorld(t)
			w.load(strings.Replace(w.caddyfile("price /paid/* $0.01 {\n settle first\n}"), "auto_https off", "auto_https off\nservers {\nprotocols h1 h2c\n}", 1))
			body := strings.Repeat("x", size)
			w.up.on(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Length", fmt.Sprint(size))
				_, _ = io.WriteString(rw, body)
			})
			payment := w.sign(http.MethodGet, "/paid/x", newPayer(t)).v2(t)
			best, answers := 0, 0
			for _, window := range []int{35_000} {
				if window >= size {
					continue
				}
				for range 30 {
					status, got := w.stingy("/paid/x", payment, window)
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
			t.Logf("%d answers, the largest part %d of %d, %d transfers", answers, best, size, w.fac.transfers())
			if answers > 3 && best*10 > size {
				t.Errorf("%d answers of up to %d of %d bytes for %d transfers; the bound is 3", answers, best, size, w.fac.transfers())
			}
		})
	}
}

// An answer that is all in its header can be ended twenty times.
func TestHeaderIsAGoodPart(t *testing.T) {
	w := newWorld(t, "price /token $0.01")
	var given atomic.Int64
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Token", fmt.Sprint("token-", given.Add(1)))
		rw.WriteHeader(200)
		_ = http.NewResponseController(rw).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(300 * time.Millisecond):
		}
	})
	payment := w.sign(http.MethodGet, "/token", newPayer(t)).v2(t)
	good := 0
	for range 30 {
		var text string
		w.until(func() bool {
			conn, host := w.dial()
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
		t.Errorf("%d tokens for %d transfers; the bound is 3", good, w.fac.transfers())
	}
}

// A verdict that is three seconds old stands for "unused": a stranger fetches
// what is owed to the payer of a payment that was used elsewhere meanwhile.
func TestOldVerdictRedeemsNothing(t *testing.T) {
	w := prepareWorld(t)
	w.load(behindProxy(w.caddyfile("price /paid/* $0.01")))
	victim := newPayer(t)
	asked := w.challenge(http.MethodGet, "/paid/b").Accepts[0]
	w.up.on(breaksOff)
	_ = w.get("/paid/b", "PAYMENT-SIGNATURE", victim.sign(t, asked, time.Now()).v2(t), "X-Forwarded-For", here)
	w.up.on(says(404, "no such page"))
	second := victim.sign(t, asked, time.Now()).v2(t)
	w.challenge(http.MethodGet, "/paid/a")
	res := w.get("/paid/a", "PAYMENT-SIGNATURE", second, "X-Forwarded-For", here)
	t.Log("uncharged:", res.StatusCode)
	// Meanwhile it is used elsewhere, and so it can be read by everybody.
	w.fac.onVerify(says(200, `{"isValid":false,"invalidReason":"invalid_exact_evm_nonce_already_used"}`))
	w.up.on(nil)
	res = w.get("/paid/b", "PAYMENT-SIGNATURE", second, "X-Forwarded-For", elsewhere)
	t.Log(res.StatusCode, res.body)
	if res.StatusCode == 200 {
		t.Errorf("a stranger has %q of the victim", res.body)
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
	w := prepareWorld(t)
	w.up.Server = up
	w.load(w.caddyfile("price /big/* $0.01"))
	p := newPayer(t)
	asked := w.challenge("GET", "/big/x").Accepts[0]
	for range 4 {
		conn, host := w.dial()
		_ = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
		fmt.Fprintf(conn, "GET /big/x HTTP/1.1\r\nHost: %s\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, p.sign(t, asked, time.Now()).v2(t))
		if _, err := io.CopyN(io.Discard, conn, size/2); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1600 * time.Millisecond)
		if n, err := io.Copy(io.Discard, conn); err != nil || n >= size/2 {
			t.Fatalf("the upstream has not given up: %d more bytes, %v", n, err)
		}
		conn.Close()
	}
	if runs.Load() != 4 || w.fac.transfers() != 2 {
		t.Errorf("%d runs, %d transfers", runs.Load(), w.fac.transfers())
	}
}

// A redirect that leaves the site gives a HEAD what it gives a GET.
func TestHeadOfARedirectIsDelivered(t *testing.T) {
	w := newWorld(t, "price /dl/* $0.01")
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Location", fmt.Sprintf("https://bucket.example/claim?token=%d", w.up.hits.Load()))
		rw.WriteHeader(http.StatusFound)
	})
	p := newPayer(t)
	asked := w.challenge("GET", "/dl/x").Accepts[0]
	for i := range 4 {
		res := w.again(func() answerOf {
			return w.do(w.request("HEAD", "/dl/x", "PAYMENT-SIGNATURE", p.sign(t, asked, time.Now()).v2(t)))
		})
		if res.Header.Get("Location") == "" || w.fac.transfers() != i+1 {
			t.Errorf("HEAD %d: %d, %d transfers", i, res.StatusCode, w.fac.transfers())
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
			w := newWorld(t, c.line)
			w.up.on(func(rw http.ResponseWriter, r *http.Request) {
				rw.WriteHeader(c.status)
				_, _ = fmt.Fprintf(rw, "charged answer %d", w.up.hits.Load())
			})
			p := newPayer(t)
			asked := w.challenge(c.method, "/x/1").Accepts[0]
			for range 4 {
				res := w.again(func() answerOf {
					return w.sendBody(t.Context(), c.method, "/x/1", p.sign(t, asked, time.Now()).v2(t), "")
				})
				if res.StatusCode != c.status || !strings.HasPrefix(res.body, "charged answer") {
					t.Errorf("%d %s", res.StatusCode, res.body)
				}
			}
			if w.up.hits.Load() != 4 || w.fac.transfers() != 4 {
				t.Errorf("%d runs, %d transfers", w.up.hits.Load(), w.fac.transfers())
			}
		})
	}
}

// An upstream that acted and says so with a status that only its line charges for is not
// asked again: the payer who left fetches its answer.
func TestChargedActIsNotRepeated(t *testing.T) {
	w := newWorld(t, "price POST /x/* $0.01 {\n settle on_success\n charge 200 422\n}")
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(rw, "charged answer")
		_ = http.NewResponseController(rw).Flush()
		time.Sleep(100 * time.Millisecond)
		_, _ = io.WriteString(rw, strings.Repeat(".", 3000))
	})
	p := newPayer(t)
	asked := w.challenge(http.MethodPost, "/x/1").Accepts[0]
	w.leaves(http.MethodPost, "/x/1", p.sign(t, asked, time.Now()).v2(t), "{}")
	res := w.again(func() answerOf {
		return w.sendBody(t.Context(), http.MethodPost, "/x/1", p.sign(t, asked, time.Now()).v2(t), "{}")
	})
	if res.StatusCode != 422 || !strings.HasPrefix(res.body, "charged answer") || w.up.hits.Load() != 1 || w.fac.transfers() != 1 {
		t.Errorf("%d %.40q, %d runs, %d transfers", res.StatusCode, res.body, w.up.hits.Load(), w.fac.transfers())
	}
}

// A payment's heads are bounded, and leave runs for the GET that it has bought.
func TestHeadsLeaveTheGet(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01")
	p := newPayer(t)
	asked := w.challenge("GET", "/paid/x").Accepts[0]
	codes := map[int]int{}
	for range 22 {
		codes[w.again(func() answerOf {
			return w.do(w.request("HEAD", "/paid/x", "PAYMENT-SIGNATURE", p.sign(t, asked, time.Now()).v2(t)))
		}).StatusCode]++
	}
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", p.sign(t, asked, time.Now()).v2(t)), 200, "")
	if w.fac.transfers() != 1 || codes[200] != 10 || codes[409] != 12 {
		t.Error(w.fac.transfers(), "transfers,", codes)
	}
}
