package promises

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// Tests of bodies: stalled, broken off, sent late, long, and of unknown length.

// twoWayUpstream answers at once, and then reads the body and says what it was.
func twoWayUpstream(t *testing.T, after func(rw http.ResponseWriter, r *http.Request)) string {
	address := loopback.FreeAddress(t)
	gate.Serve(t, address, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(rw).EnableFullDuplex()
		rw.WriteHeader(200)
		_ = http.NewResponseController(rw).Flush()
		after(rw, r)
	}))
	return address
}

// A query that is sent after the answer has begun cannot be told from others: who ends its answer has got it.
func TestTwoWayQueryIsAnsweredOncePerPayment(t *testing.T) {
	w := gate.Prepare(t)
	var answered atomic.Int64
	up := twoWayUpstream(t, func(rw http.ResponseWriter, r *http.Request) {
		b := make([]byte, 7)
		if _, err := io.ReadFull(r.Body, b); err != nil {
			return
		}
		answered.Add(1)
		_, _ = fmt.Fprintf(rw, "answer to %s", b)
		_ = http.NewResponseController(rw).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(2 * time.Second):
		}
	})
	c := strings.Replace(w.Caddyfile("price QUERY /search $0.05"), strings.TrimPrefix(w.Upstream.URL, "http://"), up, 1)
	w.Load(gate.WithH2C(c))
	p := gate.NewPayer(t)
	asked := w.Challenge("QUERY", "/search").Accepts[0]
	client := w.H2C()
	got := map[string]bool{}
	for i := range 8 {
		pr, pw := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		r, _ := http.NewRequestWithContext(ctx, "QUERY", w.URL+"/search", pr)
		r.Header.Set("PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t))
		go func() {
			time.Sleep(300 * time.Millisecond) // after the status line
			_, _ = fmt.Fprintf(pw, "query %d", i)
		}()
		res, err := client.Do(r)
		if err != nil {
			t.Log(i, err)
			cancel()
			continue
		}
		b := make([]byte, 17)
		n, _ := io.ReadFull(res.Body, b)
		t.Log(i, res.StatusCode, string(b[:n]))
		if res.StatusCode == 200 && n == 17 {
			got[string(b[:n])] = true
		}
		cancel()
		pw.Close()
		res.Body.Close()
		time.Sleep(300 * time.Millisecond)
	}
	if len(got) > w.Facilitator.Transfers() {
		t.Errorf("%d different answers for %d transfers: %v", len(got), w.Facilitator.Transfers(), got)
	}
}

// An upstream may answer before it has read the order. Its payer is lost and signs anew: it is not done twice.
func TestOrderOfALostPayerIsDoneOnce(t *testing.T) {
	w := gate.Prepare(t)
	var acted atomic.Int64
	up := twoWayUpstream(t, func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(1500 * time.Millisecond) // slow to read
		n, _ := io.Copy(io.Discard, r.Body)
		acted.Add(1)
		_, _ = fmt.Fprintf(rw, "done with %d", n)
	})
	w.Load(gate.WithH2C(strings.Replace(w.Caddyfile("price POST /act $0.01"), strings.TrimPrefix(w.Upstream.URL, "http://"), up, 1)))
	p := gate.NewPayer(t)
	asked := w.Challenge("POST", "/act").Accepts[0]
	body := strings.Repeat("x", 20<<20)
	client := w.H2C()
	for i := range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		r, _ := http.NewRequestWithContext(ctx, "POST", w.URL+"/act", strings.NewReader(body))
		r.Header.Set("PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t))
		res, err := client.Do(r)
		if err != nil {
			t.Log(i, err)
			cancel()
			continue
		}
		if i == 1 {
			all, _ := io.ReadAll(res.Body)
			t.Log(i, res.StatusCode, string(all))
		} else {
			time.Sleep(300 * time.Millisecond)
		}
		cancel()
		res.Body.Close()
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(1500 * time.Millisecond)
	t.Logf("acted %d, transfers %d", acted.Load(), w.Facilitator.Transfers())
	if w.Facilitator.Transfers() > 1 {
		t.Errorf("charged %d times for one order", w.Facilitator.Transfers())
	}
}

// A long query whose answer broke off keeps its payer from no other one of its length.
func TestOwedLongQueryBlocksNoOther(t *testing.T) {
	w := gate.New(t, "price QUERY /search $0.05")
	w.Upstream.On(gate.BreaksOff)
	p := gate.NewPayer(t)
	asked := w.Challenge("QUERY", "/search").Accepts[0]
	query := func(i int) string { return fmt.Sprintf("%05d%s", i, strings.Repeat("x", 100_000)) }
	w.SendBody(t.Context(), "QUERY", "/search", p.Sign(t, asked, time.Now()).V2(t), query(0))
	w.Upstream.On(nil)
	codes := map[string]int{}
	for i := range 30 {
		res := w.Again(func() gate.Answer {
			return w.SendBody(t.Context(), "QUERY", "/search", p.Sign(t, asked, time.Now()).V2(t), query(i+1))
		})
		codes[fmt.Sprint(res.StatusCode, " ", strings.TrimSpace(res.Text))]++
	}
	t.Log(codes)
	first := w.Again(func() gate.Answer {
		return w.SendBody(t.Context(), "QUERY", "/search", p.Sign(t, asked, time.Now()).V2(t), query(0))
	})
	t.Log("the owed one:", first.StatusCode, first.Text, w.Facilitator.Transfers())
	if codes["200 "+gate.Goods] == 0 {
		t.Errorf("no other query of that length can be bought: %v; and the owed one then: %d %s", codes, first.StatusCode, first.Text)
	}
}

// Over HTTP/3 every request may have a body. Those that have none are no orders.
func TestParallelGetsOfUnknownLengthAreSold(t *testing.T) {
	w := gate.Prepare(t)
	w.Load(w.Caddyfile("price GET /paid/* $0.01 {\n settle first\n}"))
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(300 * time.Millisecond)
		_, _ = io.WriteString(rw, gate.Goods)
	})
	p := gate.NewPayer(t)
	asked := w.Challenge("GET", "/paid/x").Accepts[0]
	for name, te := range map[string]string{"none": "", "chunked": "Transfer-Encoding: chunked\r\n"} {
		var all sync.WaitGroup
		var mu sync.Mutex
		codes := map[string]int{}
		for range 3 {
			pay := p.Sign(t, asked, time.Now()).V2(t)
			all.Go(func() {
				conn, host := w.Dial()
				end := ""
				if te != "" {
					end = "0\r\n\r\n"
				}
				fmt.Fprintf(conn, "GET /paid/x HTTP/1.1\r\nHost: %s\r\n%sPAYMENT-SIGNATURE: %s\r\n\r\n%s", host, te, pay, end)
				b := make([]byte, 12)
				_, _ = io.ReadFull(conn, b)
				mu.Lock()
				codes[string(b)]++
				mu.Unlock()
			})
		}
		all.Wait()
		t.Log(name, codes)
		if codes["HTTP/1.1 409"] > 0 {
			t.Errorf("%s: parallel GETs of one payer without a body: %v", name, codes)
		}
	}
}

// h2stall opens one stream with a body that never ends: k single bytes, then nothing.
func h2stall(w *gate.World, method, path, payment string, k int) (status string) {
	host := strings.TrimPrefix(w.URL, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(conn, http2.ClientPreface)
	f := http2.NewFramer(conn, conn)
	_ = f.WriteSettings()
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, h := range [][2]string{{":method", method}, {":scheme", "http"}, {":authority", host}, {":path", path}, {"payment-signature", payment}} {
		_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true})
	go func() {
		for range k {
			time.Sleep(300 * time.Microsecond)
			if f.WriteData(1, false, []byte("x")) != nil {
				return
			}
		}
	}()
	dec := hpack.NewDecoder(4096, func(h hpack.HeaderField) {
		if h.Name == ":status" {
			status = h.Value
		}
	})
	r := http2.NewFramer(io.Discard, conn)
	for {
		frame, err := r.ReadFrame()
		if err != nil {
			return status
		}
		switch fr := frame.(type) {
		case *http2.HeadersFrame:
			_, _ = dec.Write(fr.HeaderBlockFragment())
		case *http2.RSTStreamFrame:
			return status + " reset"
		}
	}
}

// A body that stalls while it is read ahead is cut off, and nothing of it touches the connection of a request that is over: over HTTP/2 that would crash the process.
func TestStalledBodyOutlivesNoRequest(t *testing.T) {
	w := gate.Prepare(t)
	w.Load(strings.Replace(w.Caddyfile("price POST /act $0.01"), "auto_https off", "auto_https off\nservers {\nprotocols h1 h2c\n}", 1))
	for _, g := range gate.Handlers(t) {
		g.ForTest().UploadGrace = 300 * time.Millisecond
	}
	w.Upstream.On(gate.Says(500, "no"))
	payment := gate.NewPayer(t).Sign(t, w.Challenge(http.MethodPost, "/act").Accepts[0], time.Now()).V2(t)
	res := w.SendBody(context.Background(), "POST", "/act", payment, strings.Repeat("y", 1000))
	t.Log(res.StatusCode)
	counts := map[string]int{}
	var mu sync.Mutex
	var n atomic.Int64
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		var all sync.WaitGroup
		for i := range 19 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 2 * time.Millisecond)
				s := h2stall(w, "POST", "/act", payment, int(n.Add(1)*7%160))
				mu.Lock()
				counts[s]++
				mu.Unlock()
			})
		}
		all.Wait()
	}
	t.Log(fmt.Sprint(counts), w.Facilitator.Transfers())
}

// The body of a GET ends just after the gate has stopped waiting for it: the server adds
// its trailers to the request then, in a map that nobody else may walk through. The race
// detector sees it.
func TestLateTrailersAreNobodysRace(t *testing.T) {
	const names, rounds = 500, 60
	w := gate.New(t, "price /paid/* $0.01")
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
	var announced strings.Builder
	for i := range names {
		fmt.Fprintf(&announced, "%s,", strconv.FormatInt(int64(i), 36))
	}
	announced.WriteString("zz")
	var sent strings.Builder
	for i := 0; sent.Len() < 3500; i++ {
		fmt.Fprintf(&sent, "%s: \r\n", strconv.FormatInt(int64(i), 36))
	}
	var all sync.WaitGroup
	for i := range rounds {
		if i%30 == 0 {
			all.Wait()
		}
		all.Go(func() {
			delay := 100*time.Millisecond + time.Duration(i%100)*100*time.Microsecond
			conn, host := w.Dial()
			fmt.Fprintf(conn, "GET /paid/x HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nPAYMENT-SIGNATURE: %s\r\nTrailer: %s\r\n\r\n1\r\nx\r\n",
				host, p.Sign(t, asked, time.Now()).V2(t), announced.String())
			time.Sleep(delay)
			fmt.Fprintf(conn, "0\r\n%s\r\n", sent.String())
			_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
			answer, _ := io.ReadAll(conn)
			conn.Close()
			if !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK") {
				t.Errorf("%.120q", answer)
			}
		})
	}
	all.Wait()
}
