package soak

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// freeze stops the database and all of its processes where they are, or lets them go on:
// connections stay, and nobody answers.
func (d *database) freeze(frozen bool) {
	d.t.Helper()
	how := syscall.SIGCONT
	if frozen {
		how = syscall.SIGSTOP
		_ = d.cmd.Process.Signal(how) // first, so that it makes no more of them
	}
	list, err := exec.Command("ps", "-axo", "pid=,ppid=").Output()
	if err != nil {
		d.t.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(list)); lines.Scan(); {
		var pid, parent int
		if n, _ := fmt.Sscan(lines.Text(), &pid, &parent); n == 2 && parent == d.cmd.Process.Pid {
			_ = syscall.Kill(pid, how)
		}
	}
	_ = d.cmd.Process.Signal(how)
}

// exec runs SQL, also while the database is read only.
func (d *database) exec(statements ...string) {
	d.t.Helper()
	db, err := sql.Open("pgx", d.dsn()+" default_transaction_read_only=off")
	if err != nil {
		d.t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.ExecContext(context.Background(), s); err != nil {
			d.t.Errorf("%s: %v", s, err)
		}
	}
}

// forget begins a transaction as an operator who forgets it. The function that it returns
// ends it.
func (d *database) forget(statement string) (pid uint32, end func()) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.dsn())
	if err == nil {
		_, err = conn.Exec(ctx, "BEGIN; "+statement)
	}
	if err != nil {
		d.t.Fatalf("%s: %v", statement, err)
	}
	return conn.PgConn().PID(), func() { _ = conn.Close(context.Background()) }
}

// take takes all connections that there are, those of the gateways among them, until the
// function that it returns is called.
func (d *database) take() (giveBack func()) {
	d.t.Helper()
	var all []*pgx.Conn
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for refused := 0; refused < 20; {
		conn, err := pgx.Connect(ctx, d.dsn())
		switch {
		case err == nil:
			all = append(all, conn)
			continue
		case len(all) == 0:
			d.t.Fatal(err)
		}
		refused++
		if _, err := all[0].Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'caddy-paywall'"); err != nil {
			d.t.Fatal(err)
		}
	}
	return func() {
		for _, conn := range all {
			_ = conn.Close(context.Background())
		}
	}
}

const compareQuery = `SELECT key, state, transaction, amount, extract(epoch FROM updated)::bigint FROM paywall_payments`

// over waits until nothing is in doubt, stops the gateways, and compares the ledger with
// the chain.
func (w *pair) over(within time.Duration) {
	w.t.Helper()
	w.audit()
	book := w.db.open()
	defer book.Close()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		if !slices.ContainsFunc(rows(w.t, book, compareQuery), func(r settledRow) bool { return r.state == "settling" || r.state == "unknown" }) {
			break
		}
	}
	w.one.stop()
	w.two.stop()
	w.compare(rows(w.t, book, compareQuery))
}

// actedOnce looks whether nothing with effects was done twice.
func (w *world) actedOnce() {
	w.t.Helper()
	for _, p := range w.purchases {
		if n := len(w.up.given(p.path)); p.method == http.MethodPost && n > 1 {
			w.t.Errorf("%s was done %d times: %v", p.path, n, p.story)
		}
	}
}

// TestTheDatabaseFails lets payers buy from two gateways while their database fails in one
// way after the other.
func TestTheDatabaseFails(t *testing.T) {
	t.Parallel()
	w := newPair(t)
	short, rounds, frozen := 1500*time.Millisecond, 1, []time.Duration{3 * time.Second}
	if long {
		short, frozen = 4*time.Second, append(frozen, 20*time.Second)
	}
	if full {
		rounds = 8
	}
	during := func(statement string) func() {
		return func() {
			_, end := w.db.forget(statement)
			time.Sleep(short)
			end()
		}
	}
	type event struct {
		name string
		do   func()
	}
	events := []event{
		{"rows are locked", during("SELECT 1 FROM paywall_payments WHERE lease IS NOT NULL LIMIT 3 FOR UPDATE")},
		{"all rows are locked", during("UPDATE paywall_payments SET reason = reason")},
		{"the table is locked", during("LOCK TABLE paywall_payments IN ACCESS EXCLUSIVE MODE")},
		{"it is read only", func() {
			w.db.exec("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
			time.Sleep(short)
			w.db.exec("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
		}},
		{"it crashes", func() {
			w.db.stop(syscall.SIGQUIT)
			w.db.start()
		}},
		{"others take all connections", func() {
			giveBack := w.db.take()
			time.Sleep(short)
			giveBack()
		}},
	}
	for _, d := range frozen {
		events = append(events, event{"it is frozen for " + d.String(), func() {
			w.db.freeze(true)
			time.Sleep(d)
			w.db.freeze(false)
		}})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	origins := []string{w.one.plain, w.two.plain}
	done := w.load(ctx, 4, false, func() string { return origins[w.n(2)] })
	for range rounds {
		for _, e := range events {
			time.Sleep(w.between(100*time.Millisecond, 500*time.Millisecond))
			t.Log(time.Now().Format("05.000 "), e.name)
			e.do()
		}
	}
	done()
	w.over(90 * time.Second)
	w.actedOnce()
}

// TestALockedRowHoldsUpNobodyElse: an operator has forgotten a transaction that has locked
// a payment. Its payer is told to come back, and all others are sold to at the first try.
func TestALockedRowHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	w := newPair(t)
	p := w.purchase(purchase{})
	busy, goOn := make(chan struct{}), make(chan struct{})
	w.up.will(p.path, func(rw http.ResponseWriter, r *http.Request) bool {
		close(busy)
		<-goOn
		return give(rw, r)
	})
	ch, ok := p.ask(t.Context(), w.client, w.one.plain)
	if !ok {
		t.Fatal(p.story)
	}
	s, err := p.sign(x402.V2, ch)
	w.must(err)
	send := func(g *gateway) *answer {
		a, err := p.exchange(t.Context(), w.client, g.plain, s.header())
		w.must(err)
		return a
	}
	var held sync.WaitGroup
	held.Go(func() {
		if a := send(w.one); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("the payer of the locked row gets %d %s, Retry-After %q", a.status, a.code, a.header.Get("Retry-After"))
		}
	})
	<-busy
	pid, end := w.db.forget("UPDATE paywall_payments SET reason = '' WHERE url = '" + p.path + "'")
	defer end()
	close(goOn)
	var others sync.WaitGroup
	for i := range 40 {
		o := w.purchase(purchase{method: []string{http.MethodGet, http.MethodPost}[i/2%2]})
		others.Go(func() {
			if a, err := w.sends(t.Context(), o, []*gateway{w.one, w.two}[i%2]); err != nil || a.status != http.StatusOK {
				t.Errorf("another payer: %v %v", a, err)
			}
		})
		time.Sleep(50 * time.Millisecond)
	}
	held.Wait()
	others.Wait()
	if log, err := os.ReadFile(filepath.Join(w.one.dir, "log")); err != nil || !strings.Contains(string(log), "holds up payments") || !strings.Contains(string(log), fmt.Sprintf(`"pid": %d`, pid)) &&
		!strings.Contains(string(log), fmt.Sprintf(`"pid":%d`, pid)) {
		t.Errorf("the log does not name the process %d", pid)
	}
	end()
	for range 100 {
		a := send(w.two)
		if p.judge(t.Context(), a, nil); a.status == http.StatusOK {
			break
		}
		time.Sleep(time.Second)
	}
	w.over(time.Minute)
}

// TestWhatCameWholeWithoutTheDatabaseIsNotGivenAgain: the database goes away after the
// status line of an answer of which the payer gets all.
func TestWhatCameWholeWithoutTheDatabaseIsNotGivenAgain(t *testing.T) {
	t.Parallel()
	w := newPair(t)
	away := 3 * time.Second
	if long {
		away = 20 * time.Second
	}
	for name, fail := range map[string]func(away bool){
		"stopped": func(away bool) {
			if away {
				w.db.stop(syscall.SIGINT)
			} else {
				w.db.start()
			}
		},
		"crashed": func(away bool) {
			if away {
				w.db.stop(syscall.SIGQUIT)
			} else {
				w.db.start()
			}
		},
		"frozen": w.db.freeze,
	} {
		t.Run(name, func(t *testing.T) {
			type sale struct {
				*purchase
				s          *signed
				busy, goOn chan struct{}
			}
			var sales []*sale
			var all sync.WaitGroup
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				b := &sale{purchase: w.purchase(purchase{method: method}), busy: make(chan struct{}), goOn: make(chan struct{})}
				sales = append(sales, b)
				w.up.will(b.path, func(rw http.ResponseWriter, r *http.Request) bool {
					all := goods(r.URL.Path)
					rw.Header().Set("Content-Length", strconv.Itoa(len(all)))
					_, _ = rw.Write([]byte(all[:len(all)/2]))
					_ = http.NewResponseController(rw).Flush()
					close(b.busy)
					<-b.goOn
					_, err := rw.Write([]byte(all[len(all)/2:]))
					return err == nil
				})
				ch, ok := b.ask(t.Context(), w.client, w.one.plain)
				if !ok {
					t.Fatal(b.story)
				}
				var err error
				b.s, err = b.sign(x402.V2, ch)
				w.must(err)
				all.Go(func() {
					a, err := b.exchange(t.Context(), w.client, w.one.plain, b.s.header())
					b.judge(t.Context(), a, err)
				})
				<-b.busy
			}
			time.Sleep(300 * time.Millisecond) // the status line is recorded
			fail(true)
			for _, b := range sales {
				close(b.goOn)
			}
			all.Wait()
			again := func(g *gateway, b *sale) *answer {
				a, err := b.exchange(t.Context(), w.client, g.plain, b.s.header())
				if err != nil {
					t.Errorf("again: %v", err)
					return &answer{}
				}
				if a.status < 300 {
					t.Errorf("%s %s is given again: %d", b.method, b.path, a.status)
				}
				return a
			}
			back := time.Now().Add(away)
			for _, b := range sales {
				if b.got != 1 {
					t.Errorf("%s came %d times: %v", b.path, b.got, b.story)
				}
				all.Go(func() { again(w.one, b) })
				all.Go(func() { again(w.two, b) })
			}
			if name == "frozen" {
				time.Sleep(time.Until(back))
				fail(false)
				all.Wait()
			} else {
				all.Wait()
				time.Sleep(time.Until(back))
				fail(false)
			}
			for _, b := range sales {
				for _, g := range []*gateway{w.two, w.one} {
					code := ""
					for end := time.Now().Add(60 * time.Second); code != "payment_already_used" && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
						code = again(g, b).code
					}
					if code != "payment_already_used" {
						t.Errorf("%s: %s in the end", b.method, code)
					}
				}
				if n := w.up.started(b.path); n != 1 {
					t.Errorf("%s %s was started %d times", b.method, b.path, n)
				}
			}
		})
	}
	w.over(time.Minute)
}

// TestAConnectionStormEnds: while others have all connections to the database, hundreds
// want to buy at once. Each is sold to or told to come back, and gets it then.
func TestAConnectionStormEnds(t *testing.T) {
	t.Parallel()
	w := newPair(t)
	payers := 80
	if long {
		payers = 500
	}
	giveBack := w.db.take()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	time.AfterFunc(6*time.Second, giveBack)
	var all sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]int{}
	for i := range payers {
		p := w.purchase(purchase{habit: careful})
		all.Go(func() {
			g := []*gateway{w.one, w.two}[i%2]
			a, err := w.sends(ctx, p, g)
			if err != nil && strings.Contains(err.Error(), "asked: 503 ledger_unavailable") { // before he signs
				p.buy(ctx, w.client, func() string { return g.plain })
				return
			}
			if err != nil {
				t.Errorf("no answer: %v", err)
				return
			}
			mu.Lock()
			answers[fmt.Sprint(a.status, " ", a.code)]++
			mu.Unlock()
			if a.status != http.StatusOK && (a.status != http.StatusServiceUnavailable && a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "") {
				t.Errorf("%d %s, Retry-After %q", a.status, a.code, a.header.Get("Retry-After"))
			}
			if a.status != http.StatusOK {
				p.buy(ctx, w.client, func() string { return g.plain })
			}
		})
	}
	all.Wait()
	t.Log(answers)
	book := w.db.open()
	defer book.Close()
	held := 0
	for _, r := range rows(t, book, compareQuery) {
		if r.state == "claimed" {
			held++
		}
	}
	if held > payers/10 { // but for some whose connection was cut in the middle
		t.Errorf("%d payments are held for payers who were told no", held)
	}
	w.over(90 * time.Second)
}

// TestAFrozenGatewayWakes: a gateway stands still for longer than its claims last, and its
// payers go to the other one. When it wakes it has lost its claims.
func TestAFrozenGatewayWakes(t *testing.T) {
	if !long {
		t.Skip("it takes longer than a lease")
	}
	t.Parallel()
	w := newPair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for i := range 24 {
		p := w.purchase(purchase{method: []string{http.MethodGet, http.MethodPost}[i%2], habit: careful})
		pause := time.Duration(i/2) * 100 * time.Millisecond
		w.up.will(p.path, slowly(pause), slowly(pause))
		all.Go(func() {
			first, leave := context.WithTimeout(ctx, 5*time.Second)
			defer leave()
			if a, err := w.sends(first, p, w.one); err == nil && a.status == http.StatusOK {
				return
			}
			p.buy(ctx, client(nil), func() string { return w.two.plain })
		})
	}
	time.Sleep(w.between(200*time.Millisecond, 900*time.Millisecond))
	w.must(w.one.cmd.Process.Signal(syscall.SIGSTOP))
	w.maimed.Store(true)
	time.Sleep(75 * time.Second)
	w.must(w.one.cmd.Process.Signal(syscall.SIGCONT))
	all.Wait()
	w.over(4 * time.Minute)
	for _, p := range w.purchases {
		if n := w.up.started(p.path); p.method == http.MethodPost && n > 1 {
			t.Errorf("%s was done %d times: %v", p.path, n, p.story)
		}
	}
}
