package paywall_test

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
)

// Tests of bodies: stalled, broken off, sent late, long, and of unknown length.

// h2c is a client of HTTP/2 without TLS.
func (w *world) h2c() *http.Client {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &p, DisableCompression: true}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func withH2C(caddyfile string) string {
	return strings.Replace(caddyfile, "auto_https off", "auto_https off\nservers {\nprotocols h1 h2c\n}", 1)
}

// twoWayUpstream answers at once, and then reads the body and says what it was.
func twoWayUpstream(t *testing.T, after func(rw http.ResponseWriter, r *http.Request)) string {
	address := loopback.FreeAddress(t)
	serve(t, address, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(rw).EnableFullDuplex()
		rw.WriteHeader(200)
		_ = http.NewResponseController(rw).Flush()
		after(rw, r)
	}))
	return address
}

// A query that is sent after the answer has begun cannot be told from others: who ends its answer has got it.
func TestTwoWayQueryIsAnsweredOncePerPayment(t *testing.T) {
	w := prepareWorld(t)
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
	c := strings.Replace(w.caddyfile("price QUERY /search $0.05"), strings.TrimPrefix(w.up.URL, "http://"), up, 1)
	w.load(withH2C(c))
	p := newPayer(t)
	asked := w.challenge("QUERY", "/search").Accepts[0]
	client := w.h2c()
	got := map[string]bool{}
	for i := range 8 {
		pr, pw := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		r, _ := http.NewRequestWithContext(ctx, "QUERY", w.gate+"/search", pr)
		r.Header.Set("PAYMENT-SIGNATURE", p.sign(t, asked, time.Now()).v2(t))
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
	if len(got) > w.fac.transfers() {
		t.Errorf("%d different answers for %d transfers: %v", len(got), w.fac.transfers(), got)
	}
}

// That a client breaks its body off says nothing of the upstream.
func TestBrokenBodiesCloseNoLine(t *testing.T) {
	w := newWorld(t, "price POST /render $0.01")
	asked := w.challenge(http.MethodPost, "/render").Accepts[0]
	var kept []string
	for range 3 {
		conn, host := w.dial()
		pay := newPayer(t).sign(t, asked, time.Now()).v2(t)
		kept = append(kept, pay)
		fmt.Fprintf(conn, "POST /render HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\nPAYMENT-SIGNATURE: %s\r\n\r\n5\r\ndo it\r\nZZZ\r\n", host, pay)
		b := make([]byte, 300)
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, _ := conn.Read(b)
		t.Logf("poison: %.60q", b[:n])
		conn.Close()
	}
	time.Sleep(200 * time.Millisecond)
	closed := 0
	for range 3 {
		res := w.sendBody(t.Context(), "POST", "/render", newPayer(t).sign(t, asked, time.Now()).v2(t), "fine")
		t.Log(res.StatusCode, res.body)
		if res.StatusCode == 503 {
			closed++
		}
	}
	back := 0
	for _, pay := range kept {
		if res := w.sendBody(t.Context(), "POST", "/render", pay, "do it"); res.StatusCode == 200 {
			back++
		}
	}
	if closed > 0 {
		t.Errorf("%d of 3 honest payers turned away; the attacker then fetched %d of his 3 goods", closed, back)
	}
}

// An upstream may answer before it has read the order. Its payer is lost and signs anew: it is not done twice.
func TestOrderOfALostPayerIsDoneOnce(t *testing.T) {
	w := prepareWorld(t)
	var acted atomic.Int64
	up := twoWayUpstream(t, func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(1500 * time.Millisecond) // slow to read
		n, _ := io.Copy(io.Discard, r.Body)
		acted.Add(1)
		_, _ = fmt.Fprintf(rw, "done with %d", n)
	})
	w.load(withH2C(strings.Replace(w.caddyfile("price POST /act $0.01"), strings.TrimPrefix(w.up.URL, "http://"), up, 1)))
	p := newPayer(t)
	asked := w.challenge("POST", "/act").Accepts[0]
	body := strings.Repeat("x", 20<<20)
	client := w.h2c()
	for i := range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		r, _ := http.NewRequestWithContext(ctx, "POST", w.gate+"/act", strings.NewReader(body))
		r.Header.Set("PAYMENT-SIGNATURE", p.sign(t, asked, time.Now()).v2(t))
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
	t.Logf("acted %d, transfers %d", acted.Load(), w.fac.transfers())
	if w.fac.transfers() > 1 {
		t.Errorf("charged %d times for one order", w.fac.transfers())
	}
}

// A long query whose answer broke off keeps its payer from no other one of its length.
func TestOwedLongQueryBlocksNoOther(t *testing.T) {
	w := newWorld(t, "price QUERY /search $0.05")
	w.up.on(breaksOff)
	p := newPayer(t)
	asked := w.challenge("QUERY", "/search").Accepts[0]
	query := func(i int) string { return fmt.Sprintf("%05d%s", i, strings.Repeat("x", 100_000)) }
	w.sendBody(t.Context(), "QUERY", "/search", p.sign(t, asked, time.Now()).v2(t), query(0))
	w.up.on(nil)
	codes := map[string]int{}
	for i := range 30 {
		res := w.again(func() answerOf {
			return w.sendBody(t.Context(), "QUERY", "/search", p.sign(t, asked, time.Now()).v2(t), query(i+1))
		})
		codes[fmt.Sprint(res.StatusCode, " ", strings.TrimSpace(res.body))]++
	}
	t.Log(codes)
	first := w.again(func() answerOf {
		return w.sendBody(t.Context(), "QUERY", "/search", p.sign(t, asked, time.Now()).v2(t), query(0))
	})
	t.Log("the owed one:", first.StatusCode, first.body, w.fac.transfers())
	if codes["200 "+sample] == 0 {
		t.Errorf("no other query of that length can be bought: %v; and the owed one then: %d %s", codes, first.StatusCode, first.body)
	}
}

// Over HTTP/3 every request may have a body. Those that have none are no orders.
func TestParallelGetsOfUnknownLengthAreSold(t *testing.T) {
	w := prepareWorld(t)
	w.load(w.caddyfile("price GET /paid/* $0.01 {\n settle first\n}"))
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(300 * time.Millisecond)
		_, _ = io.WriteString(rw, sample)
	})
	p := newPayer(t)
	asked := w.challenge("GET", "/paid/x").Accepts[0]
	for name, te := range map[string]string{"none": "", "chunked": "Transfer-Encoding: chunked\r\n"} {
		var all sync.WaitGroup
		var mu sync.Mutex
		codes := map[string]int{}
		for range 3 {
			pay := p.sign(t, asked, time.Now()).v2(t)
			all.Go(func() {
				conn, host := w.dial()
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
func (w *world) h2stall(method, path, payment string, k int) (status string) {
	host := strings.TrimPrefix(w.gate, "http://")
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
	w := prepareWorld(t)
	w.load(strings.Replace(w.caddyfile("price POST /act $0.01"), "auto_https off", "auto_https off\nservers {\nprotocols h1 h2c\n}", 1))
	for _, g := range gates(t) {
		g.ForTest().UploadGrace = 300 * time.Millisecond
	}
	w.up.on(says(500, "no"))
	payment := newPayer(t).sign(t, w.challenge(http.MethodPost, "/act").Accepts[0], time.Now()).v2(t)
	res := w.sendBody(context.Background(), "POST", "/act", payment, strings.Repeat("y", 1000))
	t.Log(res.StatusCode)
	counts := map[string]int{}
	var mu sync.Mutex
	var n atomic.Int64
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		var all sync.WaitGroup
		for i := range 19 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 2 * time.Millisecond)
				s := w.h2stall("POST", "/act", payment, int(n.Add(1)*7%160))
				mu.Lock()
				counts[s]++
				mu.Unlock()
			})
		}
		all.Wait()
	}
	t.Log(fmt.Sprint(counts), w.fac.transfers())
}

// The body of a GET ends just after the gate has stopped waiting for it: the server adds
// its trailers to the request then, in a map that nobody else may walk through. The race
// detector sees it.
func TestLateTrailersAreNobodysRace(t *testing.T) {
	const names, rounds = 500, 60
	w := newWorld(t, "price /paid/* $0.01")
	p := newPayer(t)
	asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
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
			conn, host := w.dial()
			fmt.Fprintf(conn, "GET /paid/x HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nPAYMENT-SIGNATURE: %s\r\nTrailer: %s\r\n\r\n1\r\nx\r\n",
				host, p.sign(t, asked, time.Now()).v2(t), announced.String())
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

// One payer who asks for what gives bad gateways closes a line for nobody.
func TestOnePayersBadGatewaysCloseNoLine(t *testing.T) {
	w := newWorld(t, "price /scrape/* $0.01 {\n settle first\n}")
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "dead") {
			rw.WriteHeader(502)
			return
		}
		_, _ = rw.Write([]byte(sample))
	})
	p := newPayer(t)
	asked := w.challenge(http.MethodGet, "/scrape/ok").Accepts[0]
	w.expect(w.get("/scrape/ok", "PAYMENT-SIGNATURE", newPayer(t).sign(t, asked, time.Now()).v2(t)), 200, "")
	for i := range 3 {
		path := fmt.Sprintf("/scrape/dead-%d", i)
		res := w.get(path, "PAYMENT-SIGNATURE", p.sign(t, asked, time.Now()).v2(t))
		w.expect(res, 502, "")
	}
	refused := 0
	for i := range 5 {
		res := w.get(fmt.Sprintf("/scrape/ok-%d", i), "PAYMENT-SIGNATURE", newPayer(t).sign(t, asked, time.Now()).v2(t))
		if res.StatusCode != 200 {
			refused++
		}
	}
	if refused > 0 {
		t.Errorf("%d honest payers of a healthy upstream refused; %d transfers", refused, w.fac.transfers())
	}
}

// A payer for whom the upstream has failed three times in a row does not pay it again,
// while it is open to others.
func TestDeadUpstreamIsNotSoldToTheSamePayer(t *testing.T) {
	w := newWorld(t, "price /scrape/* $0.01 {\n settle first\n}")
	w.up.on(says(502, ""))
	p := newPayer(t)
	asked := w.challenge(http.MethodGet, "/scrape/x").Accepts[0]
	buy := func(i int, p *payer) answerOf {
		return w.get(fmt.Sprintf("/scrape/%d", i), "PAYMENT-SIGNATURE", p.sign(t, asked, time.Now()).v2(t))
	}
	for i := range 3 {
		w.expect(buy(i, p), 502, "")
	}
	w.expect(buy(3, p), 503, "upstream_unavailable")
	w.expect(buy(4, newPayer(t)), 502, "")
	if w.fac.transfers() != 4 {
		t.Error(w.fac.transfers(), "transfers")
	}
}
