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
	// maxUnproven is how many payments may be on their way of a payer who has never paid, or
	// not since one of them was reverted. Such a payer can move the balance away, or tell
	// Permit2 to refuse, and that many transactions revert at our cost.
	maxUnproven = 2
	// maxOfPayer bounds the same for a payer who has paid: each payment that has moved money
	// since allows one more.
	maxOfPayer = 32
	// maxWaitingOfPayer and maxWaiting bound the payments that wait for a place.
	maxWaitingOfPayer, maxWaiting = 256, 1 << 15
	// maxWaitingWallets bounds the first payments of payers with code that wait. Only one of
	// them goes at a time, and those that wait hold places at the gate that others need.
	maxWaitingWallets = 32
	// maxWaitingOfWallet is how many of them may be of one payer, so that no payer keeps the
	// others out. walletWait is when a payer without a place may come again.
	maxWaitingOfWallet = 2
	walletWait         = 10 * time.Second
	// knownOf4 is how many of four places go to payers who have paid here, while both these
	// and others wait.
	knownOf4 = 3
	// paceOf is how many of the places given last the estimate of the wait is made from.
	paceOf = 64
	// maxPassed is how many payers the search for one who can use a free place passes over
	// before it gives up.
	maxPassed = 64
	// refreshEvery is how often a payment that waits has the transactions of our accounts
	// looked at: the callers who waited for those may have gone.
	refreshEvery = 2 * time.Second
)

// kind is what a payment needs a place in.
type kind int

const (
	// alone: a transaction of its own.
	alone kind = iota
	// together: a transaction of several payments.
	together
	kinds
)

// queue gives payments their places on our accounts. Payers take turns, and not
// payments, so that nobody waits behind one payer who has many; payers who have paid
// here before have the larger share, so that nobody waits behind strangers, who are
// as many as somebody likes; and strangers have a share, so that they do not wait
// for ever. Payments of the two kinds do not wait for each other.
type queue struct {
	standings *standings

	mu      sync.Mutex // guards what follows, and funds of all accounts
	payers  map[common.Address]*payer
	lines   [kinds]lines
	wallets int // first payments of payers with code on their way
	behind  int // first payments of payers with code that wait
	parked  []*line
	waiting int // payments
	given   []time.Time
}

// lines are the payers who wait for a place of one kind, and who may have one.
type lines struct {
	known   []*line // who have paid here, in turn
	unknown []*line // the others
	turn    int
}

// payer is somebody whose payments wait or are on their way.
type payer struct {
	address common.Address
	lines   [kinds]*line
	flying  map[*place]struct{} // places of payments that are on their way, or are being looked at
}

// line is the payments of one payer that wait for a place of one kind.
type line struct {
	*payer
	kind    kind
	waiting []*waiter
	listed  bool // among known or unknown
	parked  bool
}

// waiter is a payment that waits for a place on one of some accounts.
type waiter struct {
	wish
	given chan *place
}

// wish is what a payment needs.
type wish struct {
	among []*account
	kind  kind
	// most is how many payments of the kind may have places of one account.
	most int
	// token and value are what is to move.
	token common.Address
	value uint256.Int
	// mayShare: it is of kind alone only because its token is not known well enough.
	mayShare bool
	// last: nothing else of its payer may be on its way.
	last bool
	// wallet: it is the first payment of a payer with code, of which one is on its
	// way at a time: such code can tell the chain from a simulation.
	wallet bool
	// hold sets aside what the payment could cost us; false if there is not enough
	// left for it. nil if nothing is to be set aside.
	hold func() (*held, bool)
	// life is how long the authorization is still good; after that a place is of no use.
	life time.Duration
	// refresh has a look taken at what is on its way.
	refresh func(context.Context)
}

// place is the place of a payment.
type place struct {
	queue   *queue
	account *account
	payer   *payer
	wish
	held   *held
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

func newQueue(known *standings) *queue {
	return &queue{standings: known, payers: make(map[common.Address]*payer)}
}

// enter takes a place on one of the accounts, and waits for it if need be. A payment that
// cannot be served in time is refused at once, with a *busyError.
func (q *queue) enter(ctx context.Context, who common.Address, what wish) (*place, error) {
	w := &waiter{wish: what, given: make(chan *place, 1)}
	l, err := q.begin(who, w)
	if err != nil {
		return nil, err
	}
	late := time.NewTimer(w.life)
	defer late.Stop()
	again := time.NewTicker(refreshEvery)
	defer again.Stop()
	for waits := true; waits; {
		select {
		case p := <-w.given:
			return p, nil
		case <-again.C:
			if w.refresh != nil {
				w.refresh(ctx)
			}
		case <-ctx.Done():
			waits = false
		case <-late.C:
			waits = false
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range l.lines { // it may be in the other one by now
		if i := slices.Index(l.waiting, w); i >= 0 {
			l.waiting = slices.Delete(l.waiting, i, i+1)
			q.count(w, -1)
			q.list(l) // it may have been in the way of the next one of its payer
			q.serve()
			q.forget(l.payer)
			return nil, errBusy
		}
	}
	p := <-w.given // in the same moment
	p.held.end(nil)
	q.giveBack(p)
	return nil, errBusy
}

// begin puts a waiter into its line, unless there is no use in that.
func (q *queue) begin(who common.Address, w *waiter) (*line, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := q.payers[who]
	if p == nil {
		p = &payer{address: who, flying: make(map[*place]struct{})}
		for k := range kinds {
			p.lines[k] = &line{payer: p, kind: k}
		}
		q.payers[who] = p
	}
	l := p.lines[w.kind]
	if err := q.refuses(l, w); err != nil {
		q.forget(p)
		return nil, err
	}
	l.waiting = append(l.waiting, w)
	q.count(w, 1)
	q.list(l)
	q.serve()
	return l, nil
}

// count counts a waiter who comes or goes.
func (q *queue) count(w *waiter, n int) {
	q.waiting += n
	if w.wallet {
		q.behind += n
	}
}

// refuses says why a payment need not wait; nil if it may.
func (q *queue) refuses(l *line, w *waiter) error {
	if w.wallet && (q.behind >= maxWaitingWallets || l.firsts() >= maxWaitingOfWallet) {
		return &busyError{wait: walletWait}
	}
	wait := q.wait(l)
	if len(l.waiting) >= maxWaitingOfPayer || q.waiting >= maxWaiting || wait > w.life {
		return &busyError{wait: wait}
	}
	return nil
}

// firsts is how many first payments of a payer with code wait.
func (p *payer) firsts() (n int) {
	for _, l := range p.lines {
		for _, w := range l.waiting {
			if w.wallet {
				n++
			}
		}
	}
	return n
}

// wait estimates how long a new waiter will wait, by how fast places were given
// lately; 0 if nothing tells.
func (q *queue) wait(l *line) time.Duration {
	if q.waiting == 0 || len(q.given) < paceOf {
		return 0
	}
	took := time.Since(q.given[0])
	rounds := len(l.waiting) + 1
	of := &q.lines[l.kind]
	ahead, share := rounds*len(of.unknown), 4-knownOf4
	switch {
	case q.standings.paid(l.address) > 0:
		ahead, share = rounds*len(of.known), knownOf4
		if len(of.unknown) == 0 {
			share = 4
		}
	case len(of.known) == 0:
		share = 4
	}
	ahead = min(ahead, q.waiting)
	return took * time.Duration(ahead*4) / time.Duration(len(q.given)*share)
}

// list puts a line among those that are served, if it has somebody who may be.
func (q *queue) list(l *line) {
	of := &q.lines[l.kind]
	switch {
	case l.listed || len(l.waiting) == 0:
	case !q.mayGo(l):
		if l.waiting[0].wallet && !l.parked {
			l.parked = true
			q.parked = append(q.parked, l)
		}
	case q.standings.paid(l.address) > 0:
		l.listed = true
		of.known = append(of.known, l)
	default:
		l.listed = true
		of.unknown = append(of.unknown, l)
	}
}

// mayGo reports whether nothing but places is in the way of the first of a line.
func (q *queue) mayGo(l *line) bool {
	w := l.waiting[0]
	if w.last && len(l.flying) > 0 || w.wallet && q.wallets > 0 {
		return false
	}
	return len(l.flying) < q.standings.allowed(l.address)
}

// serve gives away what places there are.
func (q *queue) serve() {
	for k := range q.lines {
		of := &q.lines[k]
		for {
			first, second := &of.known, &of.unknown
			if of.turn%4 >= knownOf4 {
				first, second = second, first
			}
			if !q.serveOne(first) && !q.serveOne(second) {
				break
			}
			of.turn++
		}
	}
	if q.waiting == 0 {
		q.given = nil // how fast places are given while nobody waits tells nothing
	}
}

// serveOne gives a place to the first of some lines that can use one. That line goes to the
// end, and so do the lines that can use none.
func (q *queue) serveOne(list *[]*line) bool {
	for passed, n := 0, len(*list); n > 0 && passed < maxPassed; n-- {
		l := (*list)[0]
		*list = (*list)[1:]
		l.listed = false
		if len(l.waiting) == 0 || !q.mayGo(l) {
			q.list(l) // it comes back when it may
			continue
		}
		given := q.give(l)
		q.list(l)
		if given {
			return true
		}
		passed++
	}
	return false
}

// give hands a place to the first of a line, if there is one for it.
func (q *queue) give(l *line) bool {
	w := l.waiting[0]
	a := leastBusy(w.among, w.kind, w.most)
	if a == nil {
		return false
	}
	p := &place{queue: q, account: a, payer: l.payer, wish: w.wish, placed: true}
	if w.hold != nil {
		var enough bool
		if p.held, enough = w.hold(); !enough {
			return false
		}
	}
	l.waiting = l.waiting[1:]
	q.count(w, -1)
	a.taken[w.kind]++
	l.flying[p] = struct{}{}
	if w.wallet {
		q.wallets++
	}
	if q.given = append(q.given, time.Now()); len(q.given) > paceOf {
		q.given = q.given[len(q.given)-paceOf:]
	}
	w.given <- p
	return true
}

// joins moves those who wait for a transaction of their own and may now go together
// with others.
func (q *queue) joins(may func(*wish) bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.payers {
		from, to := p.lines[alone], p.lines[together]
		from.waiting = slices.DeleteFunc(from.waiting, func(w *waiter) bool {
			moves := may(&w.wish)
			if moves {
				to.waiting = append(to.waiting, w)
			}
			return moves
		})
		q.list(to)
	}
	q.serve()
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
		p.account.taken[p.kind]--
	}
}

func (q *queue) giveBack(p *place) {
	q.leave(p)
	if _, flying := p.payer.flying[p]; flying {
		delete(p.payer.flying, p)
		if p.wallet {
			q.wallets--
			q.unpark()
		}
		for _, l := range p.payer.lines {
			q.list(l)
		}
		q.forget(p.payer)
	}
	q.serve()
}

// wake serves the payments that wait, after something was given back that they may have waited
// for.
func (q *queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting > 0 {
		q.serve()
	}
}

// onTheirWay is what all payments of a payer in one asset move that have a place or
// are on their way, and whether there are others than this one.
func (q *queue) onTheirWay(p *place) (sum *uint256.Int, others bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	sum = new(uint256.Int)
	for other := range p.payer.flying {
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
	list := q.parked
	q.parked = nil
	for _, l := range list {
		l.parked = false
		q.list(l)
	}
}

// forget drops a payer of whom nothing is left.
func (q *queue) forget(p *payer) {
	if len(p.flying) > 0 {
		return
	}
	for _, l := range p.lines {
		if len(l.waiting) > 0 {
			return
		}
	}
	delete(q.payers, p.address)
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
	return leastBusy(among, alone, math.MaxInt)
}
