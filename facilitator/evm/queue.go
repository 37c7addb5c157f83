package evm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"
)

const (
	// maxInFlight bounds how many transactions of one account are on their way at
	// once. Nodes hold only some tens of transactions of one account.
	maxInFlight = 32
	// wholePlace is what one transaction weighs.
	wholePlace = 100
	// maxUnproven is how many payments may be on their way of a payer who has not
	// paid since one of them was reverted, or never. One move of the payer's
	// balance, or one word to Permit2, then costs us that many reverts.
	maxUnproven = 2
	// maxOfPayer is how many may be of a payer who has paid more often: as many
	// more as were paid.
	maxOfPayer = 32
	// maxWaitingOfPayer and maxWaiting bound the payments that wait for a place.
	maxWaitingOfPayer, maxWaiting = 256, 1 << 15
	// knownOf4 is how many of four places go to payers who have paid here, while
	// such and others wait.
	knownOf4 = 3
	// paceOf is how many places the estimate of the wait is made of.
	paceOf = 64
)

// queue gives payments their places on our accounts. Payers take turns, and not
// payments, so that nobody waits behind one payer who has many; payers who have paid
// here before have the larger share, so that nobody waits behind strangers, who are
// as many as somebody likes; and strangers have a share, so that they do not wait
// for ever.
type queue struct {
	standings *standings

	mu      sync.Mutex // guards what follows, and funds of all accounts
	lines   map[common.Address]*line
	known   []*line // payers who have paid here, and are to be served, in turn
	unknown []*line // the others
	turn    int
	waiting int     // payments
	wallets int     // first payments of payers with code on their way
	parked  []*line // payers who wait for that one to land
	given   []time.Time
}

func newQueue(known *standings) *queue {
	return &queue{standings: known, lines: make(map[common.Address]*line)}
}

// line is the payments of one payer that wait, and the places of those that are on
// their way.
type line struct {
	payer   common.Address
	waiting []*waiter
	flying  map[*place]struct{}
	listed  bool // among known or unknown
	parked  bool
}

// waiter is a payment that waits for a place on one of some accounts.
type waiter struct {
	line *line
	wish
	given chan *place
}

// wish is what a payment needs.
type wish struct {
	among []*account
	// token and value are what is to move.
	token common.Address
	value uint256.Int
	// weight is wholePlace for a payment that needs a transaction of its own, and a
	// part of that for one that shares one with others.
	weight int
	// alone: nothing else of its payer may be on its way.
	alone bool
	// wallet: it is the first payment of a payer with code, of which one is on its
	// way at a time: such code can tell the chain from a simulation.
	wallet bool
	// life is how long a place is of any use.
	life time.Duration
}

// place is the place of a payment.
type place struct {
	queue   *queue
	account *account
	line    *line
	wish
	placed bool // takes a place of the account
}

// busyError is for a payment that did not get its turn. Nothing of it was sent.
type busyError struct {
	// wait is how long it will take until there is a turn, as far as one can tell;
	// 0 if one cannot.
	wait time.Duration
	why  string // if it is not for the number of payments
}

func (e *busyError) Error() string {
	switch {
	case e.why != "":
		return e.why + "; none of this payment was sent"
	case e.wait > 0:
		return fmt.Sprintf("too many payments are on their way; a place will be free in about %s, which is too late for this one", e.wait.Round(time.Second))
	}
	return "too many payments are on their way; none of this one was sent"
}

// errBusy is a busyError that knows no time.
var errBusy error = new(busyError)

func isBusy(err error) (*busyError, bool) { return errors.AsType[*busyError](err) }

// enter takes a place on one of the accounts, and waits for it if need be. What
// cannot be served in time is told so at once.
func (q *queue) enter(ctx context.Context, payer common.Address, what wish) (*place, error) {
	q.mu.Lock()
	l := q.lines[payer]
	if l == nil {
		l = &line{payer: payer, flying: make(map[*place]struct{})}
		q.lines[payer] = l
	}
	w := &waiter{line: l, wish: what, given: make(chan *place, 1)}
	if err := q.refuses(w); err != nil {
		q.forget(l)
		q.mu.Unlock()
		return nil, err
	}
	l.waiting = append(l.waiting, w)
	q.waiting++
	q.list(l)
	q.serve()
	q.mu.Unlock()

	late := time.NewTimer(w.life)
	defer late.Stop()
	select {
	case p := <-w.given:
		return p, nil
	case <-ctx.Done():
	case <-late.C:
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(l.waiting, w); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
		q.waiting--
		q.list(l) // it may have been in the way of the next one of its payer
		q.serve()
		q.forget(l)
		return nil, errBusy
	}
	q.giveBack(<-w.given) // in the same moment
	return nil, errBusy
}

// refuses says why a payment need not wait; nil if it may. The caller holds mu.
func (q *queue) refuses(w *waiter) error {
	if len(w.line.waiting) >= maxWaitingOfPayer || q.waiting >= maxWaiting {
		return &busyError{wait: q.wait(w)}
	}
	if wait := q.wait(w); wait > w.life {
		return &busyError{wait: wait}
	}
	return nil
}

// wait estimates how long a new waiter will wait, by how fast places were given
// lately; 0 if nothing tells.
func (q *queue) wait(w *waiter) time.Duration {
	if q.waiting == 0 || len(q.given) < paceOf {
		return 0
	}
	took := time.Since(q.given[0])
	rounds := len(w.line.waiting) + 1
	ahead := rounds * len(q.unknown)
	share := 4 - knownOf4
	switch {
	case q.standings.paid(w.line.payer) > 0:
		ahead, share = rounds*len(q.known), knownOf4
		if len(q.unknown) == 0 {
			share = 4
		}
	case len(q.known) == 0:
		share = 4
	}
	ahead = min(ahead, q.waiting)
	return took * time.Duration(ahead*4) / time.Duration(len(q.given)*share)
}

// list puts a line among those that are served, if it has somebody who may be.
// The caller holds mu.
func (q *queue) list(l *line) {
	switch {
	case l.listed || len(l.waiting) == 0:
	case !q.mayGo(l.waiting[0]):
		if l.waiting[0].wallet && !l.parked {
			l.parked = true
			q.parked = append(q.parked, l)
		}
	case q.standings.paid(l.payer) > 0:
		l.listed = true
		q.known = append(q.known, l)
	default:
		l.listed = true
		q.unknown = append(q.unknown, l)
	}
}

// mayGo reports whether nothing but places is in the way of a waiter. The caller
// holds mu.
func (q *queue) mayGo(w *waiter) bool {
	switch l := w.line; {
	case w.alone && len(l.flying) > 0, w.wallet && q.wallets > 0:
		return false
	default:
		return len(l.flying) < q.standings.allowed(l.payer)
	}
}

// serve gives away what places there are. The caller holds mu.
func (q *queue) serve() {
	for q.waiting > 0 {
		first, second := &q.known, &q.unknown
		if q.turn%4 >= knownOf4 {
			first, second = second, first
		}
		if !q.serveOne(first) && !q.serveOne(second) {
			return
		}
		q.turn++
	}
	// How fast places are given while nobody has to wait tells nothing.
	q.given = nil
}

// serveOne gives a place to the first of some lines that can use one, and moves
// that line to the end.
func (q *queue) serveOne(lines *[]*line) bool {
	for range len(*lines) {
		l := (*lines)[0]
		*lines = (*lines)[1:]
		l.listed = false
		if len(l.waiting) == 0 || !q.mayGo(l.waiting[0]) {
			q.list(l) // it comes back when it may
			continue
		}
		w := l.waiting[0]
		a := leastBusy(w.among, maxInFlight*wholePlace-w.weight)
		if a != nil {
			l.waiting = l.waiting[1:]
			q.waiting--
			q.give(w, a)
		}
		q.list(l)
		if a != nil {
			return true
		}
	}
	return false
}

// give hands a place to a waiter.
func (q *queue) give(w *waiter, a *account) {
	a.taken += w.weight
	p := &place{queue: q, account: a, line: w.line, wish: w.wish, placed: true}
	w.line.flying[p] = struct{}{}
	if w.wallet {
		q.wallets++
	}
	q.given = append(q.given, time.Now())
	if len(q.given) > paceOf {
		q.given = q.given[len(q.given)-paceOf:]
	}
	w.given <- p
}

// leave gives back the account's place: the payment is in a block, or will not be
// sent with it. It still counts as its payer's until it has landed.
func (p *place) leave() {
	if p == nil {
		return
	}
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	p.queue.leave(p)
	p.queue.serve()
}

// landed gives back all of a place: nothing of the payment is on its way.
func (p *place) landed() {
	if p == nil {
		return
	}
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	p.queue.giveBack(p)
}

func (q *queue) leave(p *place) {
	if p.placed {
		p.placed = false
		p.account.taken -= p.weight
	}
}

func (q *queue) giveBack(p *place) {
	q.leave(p)
	if _, flying := p.line.flying[p]; flying {
		delete(p.line.flying, p)
		if p.wallet {
			q.wallets--
			q.unpark()
		}
		q.list(p.line)
		q.forget(p.line)
	}
	q.serve()
}

// onTheirWay is what all payments of a payer in one asset move that have a place or
// are on their way, and whether there are others than this one.
func (q *queue) onTheirWay(p *place) (sum *uint256.Int, others bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	sum = new(uint256.Int)
	for other := range p.line.flying {
		if other.token != p.token {
			continue
		}
		if _, over := sum.AddOverflow(sum, &other.value); over {
			sum.SetAllOne()
		}
		others = others || other != p
	}
	return sum, others
}

// unpark lists those who waited until the first payment of somebody with code had
// landed.
func (q *queue) unpark() {
	lines := q.parked
	q.parked = nil
	for _, l := range lines {
		l.parked = false
		q.list(l)
	}
}

// forget drops a line that nothing is left of.
func (q *queue) forget(l *line) {
	if len(l.waiting) == 0 && len(l.flying) == 0 {
		delete(q.lines, l.payer)
	}
}

// crowded reports whether somebody waits for a place.
func (q *queue) crowded() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting > 0
}

// likely returns the account that would be given a place now, or next.
func (q *queue) likely(among []*account) *account {
	q.mu.Lock()
	defer q.mu.Unlock()
	return leastBusy(among, math.MaxInt)
}
