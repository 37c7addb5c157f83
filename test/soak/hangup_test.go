package soak

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// TestHangUp lets clients hang up at every stage: after they have asked, while
// the facilitator checks, while the upstream works, while the money moves, while
// the goods come. The time that one waits goes through all of them.
//
// A client that hangs up comes back with the same payment, or signs anew for
// the same path. Both are its purchase: one transfer, and the goods in the end.
func TestHangUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gateway(shop{})
	times, step, limit := 8, 3, 3*time.Minute
	if long {
		times, step = 24, 1
	}
	if full {
		times, limit = 400, 30*time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	gate := make(chan struct{}, 8) // how many at once
	var buyers sync.WaitGroup
	for i := range times {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			patience := time.Duration(1+i*step%24) * 50 * time.Millisecond
			h := habit{again: 3 * (i % 2), timeout: patience, rude: full && i%4 >= 2}
			p := w.purchase(purchase{method: method, habit: h, script: &script{
				calls: []manners{late(500 * time.Millisecond)}, verify: time.Duration(i%3) * 300 * time.Millisecond,
			}})
			p.tell("%s, hangs up after %s, sends again %d times", method, patience, h.again)
			w.up.will(p.path, slowly(50*time.Millisecond), slowly(50*time.Millisecond))
			gate <- struct{}{}
			buyers.Go(func() {
				defer func() { <-gate }()
				c := client(nil)
				// It loses its patience three times at most: who hangs up sooner than
				// the chain makes a block would never get anything.
				p.buyTimes(ctx, c, g.plain, 3)
				p.habit = careful
				if p.got == 0 {
					p.buy(ctx, c, func() string { return g.plain })
				}
			})
		}
	}
	buyers.Wait()
	hungUp := 0
	for _, p := range w.purchases {
		if len(p.nonces) > 1 {
			hungUp++
		}
	}
	t.Logf("%d of %d signed more than once", hungUp, len(w.purchases))
	w.audit()
	for _, p := range w.purchases {
		if n := len(w.up.given(p.path)); p.method == http.MethodPost && n > 1+w.excused(p) {
			t.Errorf("%s was done %d times\n%v", p.path, n, p.story)
		}
	}
	w.settle(g)
}

// buyTimes buys as buy does, but gives up after some payments were sent.
func (p *purchase) buyTimes(ctx context.Context, c *http.Client, origin string, most int) {
	patience := p.habit.timeout
	for range most {
		p.habit.timeout = 0
		ch, ok := p.ask(ctx, c, origin)
		p.habit.timeout = patience
		if !ok {
			continue
		}
		s, err := p.sign(1+p.w.n(2), ch)
		if err != nil {
			p.fault("signing: %v", err)
			return
		}
		p.tell("signed %.8s", s.nonce.Hex()[2:])
		for range p.habit.again + 1 {
			a, err := p.request(ctx, c, origin, s.header())
			done, anew, pause := p.judge(ctx, a, err)
			if done {
				return
			}
			sleep(ctx, min(pause, 300*time.Millisecond))
			if anew {
				break
			}
		}
	}
}

// hangUp sends a request as exchange does, and hangs up after a time, unless the
// answer has come by then.
//
// A polite client says that it leaves (FIN) and listens on, which the gateway
// cannot tell from one that closes the connection: but so it is known, without
// looking at a clock, whether all of the goods came before the gateway learned of
// it, or after. To a server that is a delivery. What the client does next it does
// as if it had closed the connection, at once and without knowing.
//
// A rude one closes the connection, so that the gateway's next write fails. What
// was on its way then, nobody knows; see crossed.
func (p *purchase) hangUp(ctx context.Context, origin string, h header) (*answer, error) {
	type result struct {
		a   *answer
		err error
	}
	line := &line{}
	heard := make(chan result, 1)
	// It listens on when the test's time is over: what comes must be counted.
	listening, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	p.draining.Go(func() {
		defer cancel()
		c := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true, DialContext: line.dial}}
		a, err := p.exchange(listening, c, origin, h)
		if line.over() {
			if err == nil && a.has(goods(p.path)) {
				p.unseen.Add(1)
			}
			return
		}
		if err == nil && a.broken != nil && a.has(goods(p.path)) {
			p.unseen.Add(1)
		}
		heard <- result{a, err}
	})
	select {
	case r := <-heard:
		return r.a, r.err
	case <-time.After(p.habit.timeout):
	}
	if !line.leave(p.habit.rude) {
		r := <-heard
		return r.a, r.err
	}
	if p.habit.rude {
		p.left = append(p.left, time.Now())
	}
	return nil, errHungUp
}

var errHungUp = errors.New("hung up")

// line is the connection of a client that may hang up.
type line struct {
	mu        sync.Mutex
	conn      net.Conn
	gone, end bool
}

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		_ = conn.Close()
		return nil, errHungUp
	}
	l.conn = conn
	return conn, nil
}

// leave hangs up, unless the answer has come.
func (l *line) leave(rude bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end {
		return false
	}
	l.gone = true
	switch conn := l.conn.(type) {
	case nil:
	case *net.TCPConn:
		if rude {
			_ = conn.Close()
		} else {
			_ = conn.CloseWrite()
		}
	default:
		panic("no TCP")
	}
	return true
}

// over is called when the answer has come, and says whether the client is gone.
func (l *line) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end = true
	return l.gone
}

// slowly gives the goods, byte after byte at first.
func slowly(pause time.Duration) act {
	return func(w http.ResponseWriter, r *http.Request) bool {
		time.Sleep(pause)
		for _, part := range []string{goods(r.URL.Path)[:5], goods(r.URL.Path)[5:]} {
			if _, err := io.WriteString(w, part); err != nil {
				return false
			}
			_ = http.NewResponseController(w).Flush()
			time.Sleep(pause)
		}
		return true
	}
}

// The ways of an upstream to fail.

func breaks(w http.ResponseWriter, _ *http.Request) bool {
	http.Error(w, "oh no", http.StatusInternalServerError)
	return false
}

func aborts(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }

// cuts breaks off in the middle of the goods.
func cuts(w http.ResponseWriter, r *http.Request) bool {
	_, _ = io.WriteString(w, goods(r.URL.Path)[:20])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// hangs never answers.
func hangs(_ http.ResponseWriter, r *http.Request) bool {
	<-r.Context().Done()
	return false
}

// TestUpstream lets the upstream fail. What it did not sell is not paid for, or
// is owed.
func TestUpstream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gateway(shop{})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	ways := map[string][]act{
		"fails": {breaks}, "fails twice": {breaks, breaks}, "aborts": {aborts}, "aborts twice": {aborts, aborts},
		"cuts": {cuts}, "cuts twice": {cuts, cuts}, "fails, then cuts": {breaks, cuts}, "hangs": {hangs}, "hangs, then cuts": {hangs, cuts},
	}
	var buyers sync.WaitGroup
	for name, acts := range ways {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			// A POST that broke off may have been done: it is not done again, and
			// its payer is told so. That is not for this test.
			if method == http.MethodPost && (name != "fails" && name != "fails twice" && name != "aborts" && name != "aborts twice") {
				continue
			}
			for kind, h := range map[string]habit{"stock": stock, "hasty": hasty, "careful": careful} {
				h.timeout = 2 * time.Second
				p := w.purchase(purchase{method: method, habit: h})
				p.tell("upstream %s, client %s", name, kind)
				w.up.will(p.path, acts...)
				buyers.Go(func() { p.buy(ctx, client(nil), func() string { return g.plain }) })
			}
		}
	}
	buyers.Wait()
	w.audit()
	w.settle(g)
}
