package promises

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/fcgi"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// Tests of payers who have left while the upstream goes on without them.

// An upstream that does not notice that its client has left, as PHP does not, is no
// reason to charge the payer once more: he waits for it, and then fetches what he has
// paid for.
func TestPayerWhoLeftADeafUpstreamIsChargedOnce(t *testing.T) {
	for _, settle := range []string{"on_success", "first"} {
		for method, body := range map[string]string{"GET": "", "QUERY": "select 1"} {
			t.Run(settle+" "+method, func(t *testing.T) {
				w := gate.New(t, "price "+method+" /paid/* $0.01 {\n settle "+settle+"\n}", "in_process")
				goOn := make(chan struct{})
				gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
					_, _ = io.ReadAll(r.Body)
					_, _ = io.WriteString(rw, "begin")
					_ = http.NewResponseController(rw).Flush()
					<-goOn // it computes
					_, err := io.WriteString(rw, "end")
					return err
				})
				p := gate.NewPayer(t)
				asked := w.Challenge(method, "/paid/x").Accepts[0]
				sign := func() string { return p.Sign(t, asked, time.Now()).V2(t) }
				w.Leaves(method, "/paid/x", sign(), body)
				time.Sleep(100 * time.Millisecond) // until the server has noticed
				for range 2 {
					res := w.SendBody(t.Context(), method, "/paid/x", sign(), body)
					w.Expect(res, 409, "payment_in_flight")
					if res.Header.Get("Retry-After") == "" {
						t.Error("no Retry-After")
					}
				}
				close(goOn)
				w.Expect(w.Again(func() gate.Answer { return w.SendBody(t.Context(), method, "/paid/x", sign(), body) }), 200, "")
				if w.Facilitator.Transfers() != 1 {
					t.Error(w.Facilitator.Transfers(), "transfers")
				}
			})
		}
	}
}

// Another query of a payer who has left is sold meanwhile.
func TestAnotherQueryOfAPayerWhoLeftIsSold(t *testing.T) {
	w := gate.New(t, "price QUERY /q $0.01", "in_process")
	goOn := make(chan struct{})
	defer close(goOn)
	gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		asked, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(rw, "begin")
		_ = http.NewResponseController(rw).Flush()
		if string(asked) == "select 1" {
			<-goOn
		}
		return nil
	})
	p := gate.NewPayer(t)
	asked := w.Challenge("QUERY", "/q").Accepts[0]
	w.Leaves("QUERY", "/q", p.Sign(t, asked, time.Now()).V2(t), "select 1")
	time.Sleep(100 * time.Millisecond)
	w.Expect(w.SendBody(t.Context(), "QUERY", "/q", p.Sign(t, asked, time.Now()).V2(t), "select 2"), 200, "")
}

// Who leaves before anything was sold, and comes again, waits for nobody: he will not be
// charged for the first one.
func TestPayerWhoLeftBeforeTheSaleNeedNotWait(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01", "in_process")
	goOn, ended := make(chan struct{}), make(chan struct{})
	var runs atomic.Int64
	gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		if runs.Add(1) == 1 {
			defer close(ended)
			<-goOn
		}
		_, err := io.WriteString(rw, gate.Goods)
		return err
	})
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
	conn, _ := w.Begins(http.MethodGet, "/paid/x", p.Sign(t, asked, time.Now()).V2(t), "")
	w.Until(func() bool { return runs.Load() == 1 })
	conn.Close()
	time.Sleep(100 * time.Millisecond)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t)), 200, "")
	close(goOn)
	<-ended
	time.Sleep(100 * time.Millisecond)
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers(), "transfers")
	}
}

// The same over FastCGI, which ends nothing when a client leaves.
func TestPayerWhoLeftFastCGIIsChargedOnce(t *testing.T) {
	w := gate.Prepare(t)
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
			_, _ = io.WriteString(rw, gate.Goods)
		}))
	}()
	file := strings.Replace(w.Caddyfile("price /paid/* $0.01"), "flush_interval -1", "transport fastcgi {\n root /tmp\n split .php\n}", 1)
	w.Load(strings.Replace(file, "reverse_proxy "+strings.TrimPrefix(w.Upstream.URL, "http://"), "reverse_proxy "+l.Addr().String(), 1))
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodGet, "/paid/x.php").Accepts[0]
	sign := func() string { return p.Sign(t, asked, time.Now()).V2(t) }
	w.Leaves(http.MethodGet, "/paid/x.php", sign(), "")
	time.Sleep(100 * time.Millisecond)
	res := w.Again(func() gate.Answer { return w.Get("/paid/x.php", "PAYMENT-SIGNATURE", sign()) })
	if res.StatusCode != 200 || !strings.HasSuffix(res.Text, gate.Goods) || w.Facilitator.Transfers() != 1 {
		t.Errorf("%d, %d bytes, %d transfers", res.StatusCode, len(res.Text), w.Facilitator.Transfers())
	}
}

// Clients make new names for what they sign anew. An order is done once, and charged
// once, under whatever name its lost payer comes again.
func TestLostOrderIsDoneOnceUnderAnyName(t *testing.T) {
	for name, named := range map[string]func(s *gate.Payment, i int) (payment, key string){
		"Idempotency-Key": func(s *gate.Payment, i int) (payment, key string) { return s.V2(t), fmt.Sprint("order-", i) },
		"payment-identifier": func(s *gate.Payment, i int) (payment, key string) {
			return s.WithIdentifier(t, fmt.Sprint("pay_0123456789abcde", i)), ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, "price POST /act $0.01")
			goOn := make(chan struct{})
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				<-goOn
				_, _ = io.WriteString(rw, "done")
			})
			p := gate.NewPayer(t)
			asked := w.Challenge(http.MethodPost, "/act").Accepts[0]
			payment, key := named(p.Sign(t, asked, time.Now()), 0)
			conn, _ := w.Begins(http.MethodPost, "/act", payment, "order", "Idempotency-Key", key)
			w.Until(func() bool { return w.Upstream.Hits.Load() == 1 })
			conn.Close()
			time.Sleep(100 * time.Millisecond) // until the server has noticed
			send := func(i int) gate.Answer {
				payment, key := named(p.Sign(t, asked, time.Now()), i)
				return w.SendBody(t.Context(), http.MethodPost, "/act", payment, "order", "Idempotency-Key", key)
			}
			for i := range 3 {
				w.Expect(send(i+1), 409, "payment_in_flight")
			}
			close(goOn)
			w.Expect(w.Again(func() gate.Answer { return send(4) }), 200, "")
			if w.Upstream.Hits.Load() != 1 || w.Facilitator.Transfers() != 1 {
				t.Errorf("done %d times, %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
			}
		})
	}
}

// Where the upstream acts before the money moves, a lost payer's order is not begun beside
// itself under another name.
func TestLostOrderIsNotBegunBesideItself(t *testing.T) {
	w := gate.New(t, "price POST /act $0.01 {\n settle on_success\n}", "in_process")
	goOn := make(chan struct{})
	var runs atomic.Int64
	gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		_, _ = io.ReadAll(r.Body)
		runs.Add(1)
		<-goOn
		_, err := io.WriteString(rw, "done")
		return err
	})
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodPost, "/act").Accepts[0]
	conn, _ := w.Begins(http.MethodPost, "/act", p.Sign(t, asked, time.Now()).V2(t), "order", "Idempotency-Key", "a")
	w.Until(func() bool { return runs.Load() == 1 })
	conn.Close()
	time.Sleep(100 * time.Millisecond) // until the server has noticed
	defer close(goOn)
	w.Expect(w.SendBody(t.Context(), http.MethodPost, "/act", p.Sign(t, asked, time.Now()).V2(t), "order", "Idempotency-Key", "b"), 409, "payment_in_flight")
}

// Two orders under two names are two, though they say the same, while the payer of the
// first one is there.
func TestSameOrderUnderTwoNamesAtOnceIsTwo(t *testing.T) {
	w := gate.New(t, "price POST /act $0.01")
	goOn := make(chan struct{})
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, "done")
		_ = http.NewResponseController(rw).Flush()
		<-goOn
	})
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodPost, "/act").Accepts[0]
	for _, name := range []string{"a", "b"} {
		conn, _ := w.Begins(http.MethodPost, "/act", p.Sign(t, asked, time.Now()).V2(t), "order", "Idempotency-Key", name)
		b := make([]byte, 15)
		if _, err := io.ReadFull(conn, b); err != nil || string(b) != "HTTP/1.1 200 OK" {
			t.Errorf("%s: %q %v", name, b, err)
		}
		defer conn.Close()
	}
	close(goOn)
	if w.Facilitator.Transfers() != 2 {
		t.Error(w.Facilitator.Transfers(), "transfers")
	}
}

// Who has got all of his goods and leaves may buy them again at once, though the upstream
// is not done.
func TestPayerWhoHasAllBuysAgainAtOnce(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01", "in_process")
	goOn := make(chan struct{})
	defer close(goOn)
	var runs atomic.Int64
	gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		rw.Header().Set("Content-Length", fmt.Sprint(len(gate.Goods)))
		_, err := io.WriteString(rw, gate.Goods)
		_ = http.NewResponseController(rw).Flush()
		if runs.Add(1) == 1 {
			<-goOn // it tidies up
		}
		return err
	})
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodGet, "/paid/x").Accepts[0]
	conn, _ := w.Begins(http.MethodGet, "/paid/x", p.Sign(t, asked, time.Now()).V2(t), "")
	for got := ""; !strings.HasSuffix(got, gate.Goods); {
		b := make([]byte, 300)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatalf("%q %v", got, err)
		}
		got += string(b[:n])
	}
	conn.Close()
	time.Sleep(100 * time.Millisecond)
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", p.Sign(t, asked, time.Now()).V2(t)), 200, "")
	if w.Facilitator.Transfers() != 2 {
		t.Error(w.Facilitator.Transfers(), "transfers")
	}
}

// Who has left before the status line is not charged for an answer that nobody reads,
// though a handler in this process goes on writing.
func TestPayerWhoLeftBeforeTheStatusLineIsNotCharged(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01", "in_process")
	written := make(chan struct{})
	started := make(chan struct{})
	gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		close(started)
		<-r.Context().Done()
		_, err := io.WriteString(rw, gate.Goods)
		close(written)
		return err
	})
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	conn, host := w.Dial()
	fmt.Fprintf(conn, "GET /paid/x HTTP/1.1\r\nHost: %s\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", host, s)
	<-started
	conn.Close()
	<-written // held until it was settled or refused
	w.Counts(0, 1, 0)
	// Nothing has moved, so the same payment buys when its payer comes again.
	gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		_, err := io.WriteString(rw, gate.Goods)
		return err
	})
	w.Until(func() bool { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s).StatusCode == 200 })
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers())
	}
}

// A payer who hangs up: what was not settled is not charged, what was settled
// is recorded and can be fetched.
func TestWhoHangsUpFetchesWhatHeHasPaidFor(t *testing.T) {
	for name, tc := range map[string]struct {
		settle    string
		during    string
		transfers int
	}{
		"held, during verify":   {"on_success", "verify", 0},
		"held, during upstream": {"on_success", "upstream", 0},
		"held, during settle":   {"on_success", "settle", 1},
		"first, during settle":  {"first", "settle", 1},
		"first, in upstream":    {"first", "upstream", 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := gate.New(t, "price /paid/* $0.01 {\n settle "+tc.settle+"\n}")
			ctx, hangUp := context.WithCancel(context.Background())
			defer hangUp()
			stage := func(at string) {
				if at == tc.during && ctx.Err() == nil {
					hangUp()
					time.Sleep(100 * time.Millisecond) // let the news travel
				}
			}
			w.Facilitator.OnVerify(func(rw http.ResponseWriter, r *http.Request) {
				stage("verify")
				gate.Says(200, `{"isValid":true}`)(rw, r)
			})
			w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				stage("settle")
				if r.Context().Err() != nil {
					t.Error("the settlement was cut short")
				}
				w.Facilitator.Move(rw, body)
			})
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				stage("upstream")
				_, _ = rw.Write([]byte(gate.Goods))
			})
			s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
			res := w.Do(w.Request(http.MethodGet, "/paid/x", "PAYMENT-SIGNATURE", s).WithContext(ctx))
			if !errors.Is(res.Err, context.Canceled) {
				t.Fatalf("the request ended otherwise: %v", res.Err)
			}
			time.Sleep(200 * time.Millisecond)
			if got := w.Facilitator.Transfers(); got != tc.transfers {
				t.Errorf("%d transfers, want %d", got, tc.transfers)
			}
			// Coming back with the same payment brings the goods, once.
			w.Until(func() bool { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s).StatusCode == 200 })
			if got := w.Facilitator.Transfers(); got != 1 {
				t.Errorf("%d transfers in the end", got)
			}
			w.Expect(w.Again(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s) }), 402, "payment_already_used")
		})
	}
}

// Of a safe request with a body that is settled first the server does not learn that
// its payer has left. Who signs anew is not charged again.
func TestQueryPaidFirstIsSoldOnce(t *testing.T) {
	w := gate.New(t, "price QUERY /search $0.01 {\n settle first\n}")
	slow := make(chan struct{})
	var calls atomic.Int64
	w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
		body := gate.Body(r)
		if calls.Add(1) == 1 {
			<-slow
		}
		w.Facilitator.Move(rw, body)
	})
	p := gate.NewPayer(t)
	asked := w.Challenge("QUERY", "/search").Accepts[0]
	conn, host := w.Dial()
	fmt.Fprintf(conn, "QUERY /search HTTP/1.1\r\nHost: %s\r\nContent-Length: 5\r\nPAYMENT-SIGNATURE: %s\r\n\r\nwhere", host, p.Sign(t, asked, time.Now()).V2(t))
	w.Until(func() bool { return calls.Load() == 1 })
	conn.Close()
	time.Sleep(200 * time.Millisecond)
	res := w.SendBody(t.Context(), "QUERY", "/search", p.Sign(t, asked, time.Now()).V2(t), "where")
	t.Log(res.StatusCode, res.Text)
	close(slow)
	time.Sleep(300 * time.Millisecond)
	t.Log(w.Facilitator.Transfers(), "transfers")
	if w.Facilitator.Transfers() > 1 {
		t.Errorf("charged %d times for one query", w.Facilitator.Transfers())
	}
	res = w.SendBody(t.Context(), "QUERY", "/search", p.Sign(t, asked, time.Now()).V2(t), "where")
	t.Log("a third one:", res.StatusCode, w.Facilitator.Transfers(), "transfers")
}

// departure is a payer who is about to leave.
type departure struct {
	hangUp  context.CancelFunc
	noticed chan struct{} // closed when the server has noticed
}

func (d *departure) leave() {
	d.hangUp()
	<-d.noticed
}

// Who has left when the header is to go out has got nothing, whatever the answer is: it is
// owed to him, and he is not charged again.
func TestPayerWhoLeftBeforeTheHeaderIsOwed(t *testing.T) {
	answers := map[string]http.HandlerFunc{
		"a whole": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", fmt.Sprint(len(gate.Goods)))
			_, _ = io.WriteString(rw, gate.Goods)
		},
		"a stream": func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, gate.Goods)
			_ = http.NewResponseController(rw).Flush()
		},
		"a link": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Location", "https://elsewhere.example/signed")
			rw.WriteHeader(http.StatusFound)
		},
	}
	for name, answer := range answers {
		for _, price := range []string{uptoPrice, "price /chat/* $0.01 {\n settle first\n}"} {
			t.Run(name+" "+price, func(t *testing.T) {
				w, f := newUptoWorld(t, price, "in_process")
				advance := gate.Clock(t)
				upto := price == uptoPrice
				var leaving atomic.Pointer[departure]
				gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
					if d := leaving.Load(); d != nil {
						context.AfterFunc(r.Context(), func() { close(d.noticed) })
						if !upto {
							d.leave() // and the upstream does not stop
						}
					}
					answer(rw, r)
					return nil
				})
				f.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
					body := gate.Body(r)
					if d := leaving.Load(); upto && d != nil {
						d.leave()
					}
					f.Move(rw, body)
				})
				p := gate.NewPayer(t)
				sign := func() string {
					if upto {
						return w.PermitFor(http.MethodGet, "/chat/x", p).V2(t)
					}
					return w.Sign(http.MethodGet, "/chat/x", p).V2(t)
				}
				times := 3
				if upto {
					times = 1 // then he would have got it, if he had got any of it
				}
				for range times {
					res := w.Again(func() gate.Answer {
						ctx, hangUp := context.WithCancel(t.Context())
						leaving.Store(&departure{hangUp, make(chan struct{})})
						return w.SendBody(ctx, http.MethodGet, "/chat/x", sign(), "")
					})
					if res.Err == nil {
						t.Fatal(res)
					}
				}
				leaving.Store(nil)
				var res gate.Answer
				w.Until(func() bool {
					res = w.Again(func() gate.Answer { return w.Get("/chat/x", "PAYMENT-SIGNATURE", sign()) })
					wait := strings.Contains(res.Text, "too_many_hang_ups")
					if wait {
						advance(2 * time.Second)
					}
					return !wait && !strings.Contains(res.Text, "settlement_pending")
				})
				if res.StatusCode >= 400 || f.Transfers() != 1 {
					t.Errorf("%d %.60q, %d transfers", res.StatusCode, res.Text, f.Transfers())
				}
			})
		}
	}
}

// Who always closes his side of the connection before the header reads nothing, and has
// no more runs of the upstream than others.
func TestLeavingBeforeTheHeaderIsNotForNothing(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01 {\n settle first\n}", "in_process")
	advance := gate.Clock(t)
	var runs atomic.Int64
	started := make(chan struct{}, 1)
	gate.OnInProcess(func(rw http.ResponseWriter, r *http.Request) error {
		runs.Add(1)
		started <- struct{}{}
		<-r.Context().Done() // and does not stop
		_, err := io.WriteString(rw, gate.Goods)
		return err
	})
	payment := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
	// leave returns what he reads; an answer that comes while he waits is none of the upstream's.
	leave := func() string {
		conn, _ := w.Begins(http.MethodGet, "/paid/x", payment, "", "Connection", "close")
		defer conn.Close()
		all := make(chan string, 1)
		go func() {
			read, _ := io.ReadAll(conn)
			all <- string(read)
		}()
		select {
		case <-started:
			_ = conn.(*net.TCPConn).CloseWrite()
			return <-all
		case read := <-all:
			return read
		}
	}
	end := ""
	for range 60 {
		switch end = leave(); {
		case strings.Contains(end, gate.Goods):
			t.Fatalf("he reads %q", end)
		case strings.Contains(end, "too_many_hang_ups"):
			if runs.Load() < 3 {
				t.Fatalf("he waits after %d", runs.Load())
			}
			advance(time.Minute)
		}
		if strings.Contains(end, "delivery_unconfirmed") {
			break
		}
	}
	if runs.Load() != 20 || !strings.Contains(end, "delivery_unconfirmed") || w.Facilitator.Transfers() != 1 {
		t.Errorf("%d runs, %d transfers, and then %q", runs.Load(), w.Facilitator.Transfers(), end)
	}
}

// Who leaves before the header of the answer that was kept for him has not got that either,
// however often, and what was done is not done again.
func TestKeptAnswerThatHasNotBegunIsOwed(t *testing.T) {
	for name, size := range map[string]int{"short": 10, "long": 100 << 10} {
		t.Run(name, func(t *testing.T) {
			withAndWithoutLength(t, func(t *testing.T, chunked bool) { leavesBeforeTheCopy(t, strings.Repeat("x", size), chunked) })
		})
	}
}

func leavesBeforeTheCopy(t *testing.T, order string, chunked bool) {
	t.Helper()
	w := gate.Prepare(t)
	s := w.WithLedger()
	w.Load(gate.OnLedger(w.Caddyfile("price POST /act $0.01")))
	w.Upstream.On(gate.Says(http.StatusCreated, "done"))
	var hangUp atomic.Pointer[context.CancelFunc]
	s.OnMove(func(_ ledger.Claim, ch ledger.Change) error {
		if leave := hangUp.Load(); leave != nil && ch.To == ledger.Delivering && ch.Status == http.StatusCreated {
			(*leave)()
			time.Sleep(100 * time.Millisecond) // let the news travel
		}
		return nil
	})
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodPost, "/act").Accepts[0]
	send := func(ctx context.Context) gate.Answer {
		return w.Again(func() gate.Answer {
			return w.Do(w.OrderOf(ctx, http.MethodPost, "/act", p.Sign(t, asked, time.Now()).V2(t), order, chunked))
		})
	}
	for range 4 {
		ctx, leave := context.WithCancel(t.Context())
		hangUp.Store(&leave)
		if res := send(ctx); res.Err == nil {
			t.Fatal(res)
		}
	}
	hangUp.Store(nil)
	w.Expect(send(t.Context()), http.StatusCreated, "")
	if w.Upstream.Hits.Load() != 1 || w.Facilitator.Transfers() != 1 {
		t.Errorf("done %d times, %d transfers", w.Upstream.Hits.Load(), w.Facilitator.Transfers())
	}
}
