package soak

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// pair are two gateways that share a ledger. To the payers they are one shop.
type pair struct {
	*world
	db       *database
	one, two *gateway
	client   *http.Client
}

func newPair(t *testing.T) *pair {
	t.Helper()
	w := newWorld(t)
	db := newDatabase(t)
	p := &pair{world: w, db: db, client: client(nil)}
	p.one = w.gateway(shop{ledger: fmt.Sprintf("postgres %q", db.dsn())})
	p.two = w.gateway(shop{ledger: fmt.Sprintf("postgres %q", db.dsn()), twin: p.one})
	for _, g := range []*gateway{p.one, p.two} { // from its first sale on it hears the other
		if a, err := p.sends(t.Context(), w.purchase(purchase{}), g); err != nil || a.status != http.StatusOK {
			t.Fatal(a, err)
		}
		g.waitForLog("this gateway hears others")
	}
	return p
}

// waitForLog waits until the gateway has logged something.
func (g *gateway) waitForLog(text string) {
	g.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if log, err := os.ReadFile(filepath.Join(g.dir, "log")); err == nil && strings.Contains(string(log), text) {
			return
		}
	}
	g.t.Fatalf("the log lacks %q", text)
}

// sends signs for a purchase, and sends that to a gateway once.
func (w *pair) sends(ctx context.Context, p *purchase, g *gateway) (*answer, error) {
	ch, ok := p.ask(ctx, w.client, g.plain)
	if !ok {
		return nil, fmt.Errorf("no price: %v", p.story)
	}
	s, err := p.sign(x402.V2, ch)
	if err != nil {
		return nil, err
	}
	a, err := p.exchange(ctx, w.client, g.plain, s.header())
	if err == nil {
		p.judge(ctx, a, nil)
	}
	return a, err
}

// TestGatewaysTellPurchasesApart: while one gateway serves a wallet, the other one serves
// it too, if that is another purchase: at the first try. The same order is done once.
func TestGatewaysTellPurchasesApart(t *testing.T) {
	t.Parallel()
	w := newPair(t)
	key := w.payers()[0]
	for _, tt := range []struct {
		name, method string
		bodies       [2]string
		second       int // the status of what comes to the other gateway
	}{
		{"two readers of one page", http.MethodGet, [2]string{}, 200},
		{"two orders", http.MethodPost, [2]string{"order 1", "order 2"}, 200},
		{"an order twice", http.MethodPost, [2]string{"order 3", "order 3"}, 409},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := "/paid/" + strconv.Itoa(len(w.purchases)) + "x"
			busy, goOn := make(chan struct{}, 2), make(chan struct{})
			wait := func(rw http.ResponseWriter, r *http.Request) bool {
				busy <- struct{}{}
				<-goOn
				return give(rw, r)
			}
			w.up.will(path, wait, wait)
			buyers := [2]*purchase{
				w.purchase(purchase{method: tt.method, path: path, key: key, body: tt.bodies[0]}),
				w.purchase(purchase{method: tt.method, path: path, key: key, body: tt.bodies[1]}),
			}
			var first, both sync.WaitGroup
			answers := [2]*answer{}
			buy := func(i int, g *gateway) {
				var err error
				if answers[i], err = w.sends(t.Context(), buyers[i], g); err != nil {
					t.Error(err)
				}
			}
			first.Go(func() { buy(0, w.one) })
			<-busy
			both.Go(func() { buy(1, w.two) })
			if tt.second == 200 {
				<-busy
			} else {
				both.Wait()
			}
			close(goOn)
			first.Wait()
			both.Wait()
			if t.Failed() {
				return
			}
			if answers[0].status != 200 || answers[1].status != tt.second {
				t.Errorf("%d and %d %s", answers[0].status, answers[1].status, answers[1].code)
			}
			runs := 1
			if tt.second == 200 {
				runs = 2
			}
			if n := w.up.started(path); n != runs {
				t.Errorf("%d runs, want %d", n, runs)
			}
			if tt.second != 200 { // once the first one is done, it is another order
				w.up.will(path)
				if a, err := w.sends(t.Context(), buyers[1], w.two); err != nil || a.status != 200 {
					t.Error(a, err)
				}
			}
		})
	}
	w.audit()
}

// TestAQuoteIsGoodAtTheOtherGatewayAndAfterARestart: while a new price is rolled out, who was
// asked for the old one by a gateway can pay that at another one, and at the same one after
// it was restarted.
func TestAQuoteIsGoodAtTheOtherGatewayAndAfterARestart(t *testing.T) {
	t.Parallel()
	w := newPair(t)
	first := w.purchase(purchase{})
	ch, ok := first.ask(t.Context(), w.client, w.one.plain)
	if !ok {
		t.Fatal(first.story)
	}
	for i, g := range []*gateway{w.two, w.one} {
		g.stop()
		dearer := strings.Replace(g.config, "price /paid/* $0.01", fmt.Sprintf("price /paid/* $0.0%d", 2+i), 1)
		w.must(os.WriteFile(filepath.Join(g.dir, "Caddyfile"), []byte(dearer), 0o600))
		g.start()
		p := first
		if i > 0 {
			p = w.purchase(purchase{path: first.path + "/more"}) // the quote is the line's
		}
		s, err := p.sign(x402.V2, ch)
		w.must(err)
		a, err := p.exchange(t.Context(), w.client, g.plain, s.header())
		if err != nil || a.status != http.StatusOK {
			t.Errorf("gateway %d: %v %v", i, a, err)
			continue
		}
		p.judge(t.Context(), a, nil)
	}
	w.audit()
}

// TestTheSameOrderAgainIsSoldByTheOtherGateway: a payer who has read all of the answer may
// order the same again at once, though the gateway that gave it has not recorded that yet.
func TestTheSameOrderAgainIsSoldByTheOtherGateway(t *testing.T) {
	t.Parallel()
	w := newPair(t)
	db := w.db.open()
	defer db.Close()
	for _, sql := range []string{
		`CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.15); RETURN NEW; END'`,
		`CREATE TRIGGER slow BEFORE UPDATE ON paywall_payments FOR EACH ROW WHEN (NEW.state = 'delivered') EXECUTE FUNCTION take_time()`,
	} {
		if _, err := db.ExecContext(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	key := w.payers()[0]
	atOnce := func(rw http.ResponseWriter, r *http.Request) bool {
		rw.Header().Set("Content-Type", "text/event-stream") // such is not kept back until its end
		rw.Header().Set("Content-Length", strconv.Itoa(len(goods(r.URL.Path))))
		return give(rw, r)
	}
	w.up.will("/paid/again", atOnce, atOnce, atOnce, atOnce, atOnce, atOnce)
	for i := range 6 {
		p := w.purchase(purchase{method: http.MethodPost, path: "/paid/again", key: key, body: "the same"})
		if a, err := w.sends(t.Context(), p, []*gateway{w.one, w.two}[i%2]); err != nil || a.status != http.StatusOK {
			t.Fatalf("order %d: %v %v", i+1, a, err)
		}
	}
	w.audit()
}

// TestAFetchedOrderIsKnownToTheOtherGateway: while one gateway gives again what it owes,
// the other one sells another order to that wallet, and not the same one.
func TestAFetchedOrderIsKnownToTheOtherGateway(t *testing.T) {
	t.Parallel()
	w := newPair(t)
	key := w.payers()[0]
	for _, tt := range []struct {
		name   string
		fresh  bool // it is fetched with a fresh signature
		second string
		status int
	}{
		{"with the same payment, another order", false, "another", 200},
		{"with the same payment, the same", false, "the order", 409},
		{"with a fresh signature, another order", true, "another", 200},
		{"with a fresh signature, the same", true, "the order", 409},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := "/paid/fetched" + strconv.Itoa(len(w.purchases))
			running, goOn := make(chan struct{}, 2), make(chan struct{})
			w.up.will(path, breaks, func(rw http.ResponseWriter, r *http.Request) bool {
				running <- struct{}{}
				<-goOn
				return give(rw, r)
			})
			first := w.purchase(purchase{method: http.MethodPost, path: path, key: key, body: "the order"})
			ch, ok := first.ask(t.Context(), w.client, w.one.plain)
			if !ok {
				t.Fatal(first.story)
			}
			s, err := first.sign(x402.V2, ch)
			w.must(err)
			if a, err := first.exchange(t.Context(), w.client, w.one.plain, s.header()); err != nil || a.status != http.StatusInternalServerError {
				t.Fatal(a, err)
			}
			var fetching sync.WaitGroup
			fetching.Go(func() {
				for range 50 { // the claim of the first try ends a moment after its answer
					if tt.fresh {
						if s, err = first.sign(x402.V2, ch); err != nil {
							break
						}
					}
					a, err := first.exchange(t.Context(), w.client, w.one.plain, s.header())
					if err == nil && a.status == http.StatusOK {
						first.judge(t.Context(), a, nil)
						return
					}
					sleep(t.Context(), 50*time.Millisecond)
				}
				t.Error("it was not fetched")
			})
			<-running
			second := w.purchase(purchase{method: http.MethodPost, path: path, key: key, body: tt.second})
			a, err := w.sends(t.Context(), second, w.two)
			close(goOn)
			fetching.Wait()
			if err != nil || a.status != tt.status {
				t.Errorf("%v %v, want %d", a, err, tt.status)
			}
			if tt.status != 200 { // once the first one is done, it is another order
				if a, err := w.sends(t.Context(), second, w.two); err != nil || a.status != 200 {
					t.Error(a, err)
				}
			}
		})
	}
	w.audit()
}

// TestAHungUpOrderIsDoneOnceByTwoGateways: a payer hangs up on an order, and signs it anew
// at the other gateway. It is charged and done once, and the answer is fetched.
func TestAHungUpOrderIsDoneOnceByTwoGateways(t *testing.T) {
	t.Parallel()
	w := newPair(t)
	times := 4
	if long {
		times = 40
	}
	var all sync.WaitGroup
	for i := range times {
		p := w.purchase(purchase{method: http.MethodPost, habit: stock})
		w.up.will(p.path, slowly(300*time.Millisecond), slowly(300*time.Millisecond))
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
			defer cancel()
			leaving, leave := context.WithTimeout(ctx, time.Duration(200+i*37%900)*time.Millisecond)
			defer leave()
			if a, err := w.sends(leaving, p, w.one); err == nil && a.status == 200 {
				return // it was there before
			}
			for p.got == 0 && ctx.Err() == nil {
				if a, err := w.sends(ctx, p, w.two); err != nil || a.status != 200 {
					sleep(ctx, 200*time.Millisecond)
				}
			}
		})
	}
	all.Wait()
	w.audit()
	for _, p := range w.purchases {
		if n := w.up.started(p.path); n != 1 {
			t.Errorf("%s was done %d times: %v", p.path, n, p.story)
		}
	}
}

// TestWhoMeetsADeadGatewaysClaimIsToldHowLong: from elsewhere nobody can see that a gateway is
// dead, so the lease ends by itself, and Retry-After says what is left of it. When the gateway
// starts again on its machine, its former claims are free at once.
func TestWhoMeetsADeadGatewaysClaimIsToldHowLong(t *testing.T) {
	t.Parallel()
	w := newPair(t)
	p := w.purchase(purchase{})
	stuck := make(chan struct{})
	w.up.will(p.path, func(_ http.ResponseWriter, r *http.Request) bool {
		close(stuck)
		<-r.Context().Done()
		return false
	})
	var sent sync.WaitGroup
	sent.Go(func() { _, _ = w.sends(t.Context(), p, w.one) })
	<-stuck
	w.one.kill()
	sent.Wait()
	a, err := w.sends(t.Context(), p, w.two)
	if err != nil || a.status != http.StatusConflict {
		t.Fatal(a, err)
	}
	if wait, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || wait < 20 || wait > 60 {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	w.one.start()
	if a, err := w.sends(t.Context(), p, w.one); err != nil || a.status != http.StatusOK {
		t.Error(a, err)
	}
	if a, err := w.sends(t.Context(), w.purchase(purchase{key: p.key, path: p.path}), w.two); err != nil || a.status != http.StatusOK {
		t.Error(a, err)
	}
}
