package paywall_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/fcgi"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Tests of payers who have left while the upstream goes on without them.

// leaves sends a request, waits for the beginning of its answer, and hangs up.
func (w *world) leaves(method, path, payment, body string, header ...string) {
	w.t.Helper()
	conn, _ := w.begins(method, path, payment, body, header...)
	if _, err := conn.Read(make([]byte, 300)); err != nil {
		w.t.Error("no answer began:", err)
	}
	conn.Close()
}

// begins sends a request over a connection of its own.
func (w *world) begins(method, path, payment, body string, header ...string) (conn net.Conn, host string) {
	conn, host = w.dial()
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nPAYMENT-SIGNATURE: %s\r\nContent-Length: %d\r\n", method, path, host, payment, len(body))
	for i := 0; i < len(header); i += 2 {
		fmt.Fprintf(conn, "%s: %s\r\n", header[i], header[i+1])
	}
	fmt.Fprintf(conn, "\r\n%s", body)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	return conn, host
}

// An upstream that does not notice that its client has left, as PHP does not, is no
// reason to charge the payer once more: he waits for it, and then fetches what he has
// paid for.
func TestPayerWhoLeftADeafUpstreamIsChargedOnce(t *testing.T) {
	for _, settle := range []string{"on_success", "first"} {
		for method, body := range map[string]string{"GET": "", "QUERY": "select 1"} {
			t.Run(settle+" "+method, func(t *testing.T) {
				w := newWorld(t, "price "+method+" /paid/* $0.01 {\n settle "+settle+"\n}", "in_process")
				goOn := make(chan struct{})
				onInProcess(func(rw http.ResponseWriter, r *http.Request) error {
					_, _ = io.ReadAll(r.Body)
					_, _ = io.WriteString(rw, "begin")
					_ = http.NewResponseController(rw).Flush()
					<-goOn // it computes
					_, err := io.WriteString(rw, "end")
					return err
				})
				p := newPayer(t)
				asked := w.challenge(method, "/paid/x").Accepts[0]
				sign := func() string { return p.sign(t, asked, time.Now()).v2(t) }
				w.leaves(method, "/paid/x", sign(), body)
				time.Sleep(100 * time.Millisecond) // until the server has noticed
				for range 2 {
					res := w.sendBody(t.Context(), method, "/paid/x", sign(), body)
					w.expect(res, 409, "payment_in_flight")
					if res.Header.Get("Retry-After") == "" {
						t.Error("no Retry-After")
					}
				}
				close(goOn)
				w.expect(w.again(func() answerOf { return w.sendBody(t.Context(), method, "/paid/x", sign(), body) }), 200, "")
				if w.fac.transfers() != 1 {
					t.Error(w.fac.transfers(), "transfers")
				}
			})
		}
	}
}

// Another query of a payer who has left is sold meanwhile.
func TestAnotherQueryOfAPayerWhoLeftIsSold(t *testing.T) {
	w := newWorld(t, "price QUERY /q $0.01", "in_process")
	goOn := make(chan struct{})
	defer close(goOn)
	onInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		asked, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(rw, "begin")
		_ = http.NewResponseController(rw).Flush()
		if string(asked) == "select 1" {
			<-goOn
		}
		return nil
	})
	p := newPayer(t)
	asked := w.challenge("QUERY", "/q").Accepts[0]
	w.leaves("QUERY", "/q", p.sign(t, asked, time.Now()).v2(t), "select 1")
	time.Sleep(100 * time.Millisecond)
	w.expect(w.sendBody(t.Context(), "QUERY", "/q", p.sign(t, asked, time.Now()).v2(t), "select 2"), 200, "")
}

// Who leaves before anything was sold, and comes again, waits for nobody: he will not be
// charged for the first one.
func TestPayerWhoLeftBeforeTheSaleNeedNotWait(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01", "in_process")
	goOn, ended := make(chan struct{}), make(chan struct{})
	var runs atomic.Int64
	onInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		if runs.Add(1) == 1 {
			defer close(ended)
			<-goOn
		}
		_, err := io.WriteString(rw, sample)
		return err
	})
	p := newPayer(t)
	asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
	conn, _ := w.begins(http.MethodGet, "/paid/x", p.sign(t, asked, time.Now()).v2(t), "")
	w.until(func() bool { return runs.Load() == 1 })
	conn.Close()
	time.Sleep(100 * time.Millisecond)
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", p.sign(t, asked, time.Now()).v2(t)), 200, "")
	close(goOn)
	<-ended
	time.Sleep(100 * time.Millisecond)
	if w.fac.transfers() != 1 {
		t.Error(w.fac.transfers(), "transfers")
	}
}

// The same over FastCGI, which ends nothing when a client leaves.
func TestPayerWhoLeftFastCGIIsChargedOnce(t *testing.T) {
	w := prepareWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		_ = fcgi.Serve(l, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(rw, strings.Repeat("begin ", 2000))
			rw.(http.Flusher).Flush()
			time.Sleep(time.Second)
			_, _ = io.WriteString(rw, sample)
		}))
	}()
	file := strings.Replace(w.caddyfile("price /paid/* $0.01"), "flush_interval -1", "transport fastcgi {\n root /tmp\n split .php\n}", 1)
	w.load(strings.Replace(file, "reverse_proxy "+strings.TrimPrefix(w.up.URL, "http://"), "reverse_proxy "+l.Addr().String(), 1))
	p := newPayer(t)
	asked := w.challenge(http.MethodGet, "/paid/x.php").Accepts[0]
	sign := func() string { return p.sign(t, asked, time.Now()).v2(t) }
	w.leaves(http.MethodGet, "/paid/x.php", sign(), "")
	time.Sleep(100 * time.Millisecond)
	res := w.again(func() answerOf { return w.get("/paid/x.php", "PAYMENT-SIGNATURE", sign()) })
	if res.StatusCode != 200 || !strings.HasSuffix(res.body, sample) || w.fac.transfers() != 1 {
		t.Errorf("%d, %d bytes, %d transfers", res.StatusCode, len(res.body), w.fac.transfers())
	}
}

// Clients make new names for what they sign anew. An order is done once, and charged
// once, under whatever name its lost payer comes again.
func TestLostOrderIsDoneOnceUnderAnyName(t *testing.T) {
	for name, named := range map[string]func(s *signed, i int) (payment, key string){
		"Idempotency-Key": func(s *signed, i int) (payment, key string) { return s.v2(t), fmt.Sprint("order-", i) },
		"payment-identifier": func(s *signed, i int) (payment, key string) {
			return s.withIdentifier(t, fmt.Sprint("pay_0123456789abcde", i)), ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "price POST /act $0.01")
			goOn := make(chan struct{})
			w.up.on(func(rw http.ResponseWriter, r *http.Request) {
				<-goOn
				_, _ = io.WriteString(rw, "done")
			})
			p := newPayer(t)
			asked := w.challenge(http.MethodPost, "/act").Accepts[0]
			payment, key := named(p.sign(t, asked, time.Now()), 0)
			conn, _ := w.begins(http.MethodPost, "/act", payment, "order", "Idempotency-Key", key)
			w.until(func() bool { return w.up.hits.Load() == 1 })
			conn.Close()
			time.Sleep(100 * time.Millisecond) // until the server has noticed
			send := func(i int) answerOf {
				payment, key := named(p.sign(t, asked, time.Now()), i)
				return w.sendBody(t.Context(), http.MethodPost, "/act", payment, "order", "Idempotency-Key", key)
			}
			for i := range 3 {
				w.expect(send(i+1), 409, "payment_in_flight")
			}
			close(goOn)
			w.expect(w.again(func() answerOf { return send(4) }), 200, "")
			if w.up.hits.Load() != 1 || w.fac.transfers() != 1 {
				t.Errorf("done %d times, %d transfers", w.up.hits.Load(), w.fac.transfers())
			}
		})
	}
}

// Where the upstream acts before the money moves, a lost payer's order is not begun beside
// itself under another name.
func TestLostOrderIsNotBegunBesideItself(t *testing.T) {
	w := newWorld(t, "price POST /act $0.01 {\n settle on_success\n}", "in_process")
	goOn := make(chan struct{})
	var runs atomic.Int64
	onInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		_, _ = io.ReadAll(r.Body)
		runs.Add(1)
		<-goOn
		_, err := io.WriteString(rw, "done")
		return err
	})
	p := newPayer(t)
	asked := w.challenge(http.MethodPost, "/act").Accepts[0]
	conn, _ := w.begins(http.MethodPost, "/act", p.sign(t, asked, time.Now()).v2(t), "order", "Idempotency-Key", "a")
	w.until(func() bool { return runs.Load() == 1 })
	conn.Close()
	time.Sleep(100 * time.Millisecond) // until the server has noticed
	defer close(goOn)
	w.expect(w.sendBody(t.Context(), http.MethodPost, "/act", p.sign(t, asked, time.Now()).v2(t), "order", "Idempotency-Key", "b"), 409, "payment_in_flight")
}

// Two orders under two names are two, though they say the same, while the payer of the
// first one is there.
func TestSameOrderUnderTwoNamesAtOnceIsTwo(t *testing.T) {
	w := newWorld(t, "price POST /act $0.01")
	goOn := make(chan struct{})
	w.up.on(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, "done")
		_ = http.NewResponseController(rw).Flush()
		<-goOn
	})
	p := newPayer(t)
	asked := w.challenge(http.MethodPost, "/act").Accepts[0]
	for _, name := range []string{"a", "b"} {
		conn, _ := w.begins(http.MethodPost, "/act", p.sign(t, asked, time.Now()).v2(t), "order", "Idempotency-Key", name)
		b := make([]byte, 15)
		if _, err := io.ReadFull(conn, b); err != nil || string(b) != "HTTP/1.1 200 OK" {
			t.Errorf("%s: %q %v", name, b, err)
		}
		defer conn.Close()
	}
	close(goOn)
	if w.fac.transfers() != 2 {
		t.Error(w.fac.transfers(), "transfers")
	}
}

// Who has got all of his goods and leaves may buy them again at once, though the upstream
// is not done.
func TestPayerWhoHasAllBuysAgainAtOnce(t *testing.T) {
	w := newWorld(t, "price /paid/* $0.01", "in_process")
	goOn := make(chan struct{})
	defer close(goOn)
	var runs atomic.Int64
	onInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		rw.Header().Set("Content-Length", fmt.Sprint(len(sample)))
		_, err := io.WriteString(rw, sample)
		_ = http.NewResponseController(rw).Flush()
		if runs.Add(1) == 1 {
			<-goOn // it tidies up
		}
		return err
	})
	p := newPayer(t)
	asked := w.challenge(http.MethodGet, "/paid/x").Accepts[0]
	conn, _ := w.begins(http.MethodGet, "/paid/x", p.sign(t, asked, time.Now()).v2(t), "")
	for got := ""; !strings.HasSuffix(got, sample); {
		b := make([]byte, 300)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatalf("%q %v", got, err)
		}
		got += string(b[:n])
	}
	conn.Close()
	time.Sleep(100 * time.Millisecond)
	w.expect(w.get("/paid/x", "PAYMENT-SIGNATURE", p.sign(t, asked, time.Now()).v2(t)), 200, "")
	if w.fac.transfers() != 2 {
		t.Error(w.fac.transfers(), "transfers")
	}
}
