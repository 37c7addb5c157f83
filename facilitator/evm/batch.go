package evm

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

const (
	// defaultBatch is how many payments go in one transaction, where the config does not say,
	// and defaultBatchWait how long the first of them waits for others. A batch of ten saves
	// nine tenths of the gas that a batch can save.
	defaultBatch     = 20
	defaultBatchWait = 200 * time.Millisecond
	// maxBatch keeps a transaction of payments below the most gas that one may have
	// (EIP-7825), and maxBatchWait is less than most blocks take.
	maxBatch     = 50
	maxBatchWait = 2 * time.Second
	// memberGas is what one payment of several may use: what a transfer of USDC takes to an
	// account that held none, and some more. A payment that burns all of it takes nothing from
	// the others.
	memberGas = 120_000
	// noBatchLife is how long payments go alone after a node could not run several
	// together.
	noBatchLife = 10 * time.Minute
	// leadWithin bounds how long a batch waits until transactions that were sent
	// before it are in blocks.
	leadWithin = time.Minute
)

// errAlone is for a payment that was not sent with others, and can be sent alone.
var errAlone = errors.New("not sent together with others")

// batches is where the payments meet that one account sends in one transaction.
type batches struct {
	mu      sync.Mutex
	forming *batch
}

// batch is payments that go in one transaction, see program. Only payments by EIP-3009
// of accounts without code go together, of tokens that were seen to write the two
// events of a payment one after the other, by which each is proved.
type batch struct {
	members []*member
	closed  bool          // it is being sent, and nobody can leave it
	full    chan struct{} // is closed when there is no room for more
	done    chan struct{} // is closed when all members know what became of them
}

// member is one payment of a batch.
type member struct {
	p    *payment
	view view
	sent // is written before done is closed
}

// sent is what became of sending. Its zero value says that nobody knows.
type sent struct {
	flight *flight
	answer answer
	err    error
}

// shareable reports whether a payment can be in a transaction with others.
func (c *settler) shareable(p *payment) bool {
	return c.mayShare(p) && c.seen(&c.pairing, p.Token)
}

// mayShare is shareable without the condition that the token was already seen to write both
// events of a payment in succession.
func (c *settler) mayShare(p *payment) bool {
	if c.batch < 2 || p.solo || p.signer != byKey || p.limit != 0 || c.now().Unix() < c.noBatch.Load() {
		return false
	}
	_, own := p.way.(*eip3009)
	return own
}

// sawPair takes note that a token writes the events of a payment one after the other.
// Those who wait for transactions of their own go together then: all of a rush, after a
// quiet time.
func (c *settler) sawPair(token common.Address) {
	before := c.seen(&c.pairing, token)
	c.pairing.Store(token, c.now())
	if before || c.batch < 2 {
		return
	}
	c.shared.queue.joins(func(w *wish) bool {
		if w.token != token || !w.mayShare {
			return false
		}
		c.dress(w, together)
		return true
	})
}

// dispatch sends a payment that was found good, together with others if it may be.
// The flight is nil if nothing was sent.
func (c *settler) dispatch(ctx context.Context, p *payment, v view) (*flight, answer, error) {
	if !c.shareable(p) {
		return c.sendAlone(ctx, p, v)
	}
	m := &member{p: p, view: v}
	b, first := p.account.batches.join(m, c.batch)
	if first {
		c.lead(ctx, b, p.account)
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		if p.account.batches.withdraw(b, m) {
			return nil, turnedAway, errBusy
		}
		<-b.done // it is being sent, which the time-outs of the nodes bound
	}
	return m.flight, m.answer, m.err
}

// join adds a member to the batch that is forming, and says whether it is the first:
// that one sends them all.
func (s *batches) join(m *member, most int) (b *batch, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forming == nil {
		s.forming = &batch{full: make(chan struct{}), done: make(chan struct{})}
		first = true
	}
	b = s.forming
	b.members = append(b.members, m)
	if len(b.members) >= most {
		close(b.full)
		s.forming = nil
	}
	return b, first
}

// withdraw takes back a member whose caller waits no more, unless it is too late.
func (s *batches) withdraw(b *batch, m *member) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.closed {
		return false
	}
	b.members = slices.DeleteFunc(b.members, func(other *member) bool { return other == m })
	return true
}

// end closes the batch, and returns its members.
func (s *batches) end(b *batch) []*member {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forming == b {
		s.forming = nil
	}
	b.closed = true
	return b.members
}

// lead gathers the others and sends the batch. It goes on when the caller of the
// first payment gives up: the others rely on it.
func (c *settler) lead(caller context.Context, b *batch, a *account) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(caller), leadWithin)
	defer cancel()
	// The members are told also after a panic: they wait for it, and a member that was told
	// nothing may be on its way.
	defer close(b.done)
	if a.sender.busy() || c.shared.queue.crowded() {
		wait := time.NewTimer(c.batchWait)
		select {
		case <-b.full:
		case <-wait.C:
		}
		wait.Stop()
	}
	leave, err := c.turn(ctx, a)
	members := a.batches.end(b)
	if err != nil {
		tell(members, sent{answer: turnedAway, err: err})
		return
	}
	defer leave()
	if len(members) > 1 {
		members = c.sendTogether(ctx, a, members)
	}
	for _, m := range members { // the only one
		m.flight, m.answer, m.err = c.send(ctx, m.view, flightOf(m.p))
		m.seeRoom()
	}
}

// seeRoom has a payment go alone that was left out because it may cost more gas than there is
// room for: alone it waits until there is room for what it takes.
func (m *member) seeRoom() {
	if errors.Is(m.err, errTooRisky) {
		m.p.solo = true
	}
}

// leftOutError says which payments cannot be in a transaction, and why. Nothing was sent,
// and the others can go without them.
type leftOutError struct{ why map[claim]error }

// leaveOut makes a *leftOutError of the payments that cannot be in a transaction, each with
// the reason; nil if there are none.
func leaveOut(why map[claim]error) error {
	if len(why) == 0 {
		return nil
	}
	return &leftOutError{why}
}

func (e *leftOutError) Error() string { return errors.Join(e.Unwrap()...).Error() }

func (e *leftOutError) Unwrap() []error { return slices.Collect(maps.Values(e.why)) }

// without tells members why they are left out, and returns the others. What was set aside for
// those left out is room for the others.
func (e *leftOutError) without(members []*member) (rest []*member) {
	for _, m := range members {
		why, out := e.why[m.p.claim()]
		if !out {
			rest = append(rest, m)
			continue
		}
		m.sent = sent{answer: turnedAway, err: why}
		m.seeRoom()
		if m.p.place != nil {
			m.p.place.held.end(nil)
		}
	}
	return rest
}

func tell(list []*member, s sent) {
	for _, m := range list {
		m.sent = s
	}
}

// sendTogether sends members in one transaction, after a simulation of all of them
// in their order: one may spend what another one needs. It returns the member that
// is to be sent alone, if only one is left.
func (c *settler) sendTogether(ctx context.Context, a *account, members []*member) []*member {
	good, v, err := c.trial(ctx, a, members)
	if err != nil {
		tell(members, sent{answer: turnedAway, err: err})
		return nil
	}
	for len(good) > 1 {
		fl := flightOfAll(a, good)
		if !covers(a, fl.gas, v.fees.of(len(fl.data)), v) {
			// The balance may be enough for one payment. If it is not, that payment is told
			// when it goes alone.
			tell(good, sent{answer: turnedAway, err: errAlone})
			return nil
		}
		fl, answer, err := c.send(ctx, v, fl)
		if left, some := errors.AsType[*leftOutError](err); some {
			good = left.without(good)
			continue
		}
		if answer == refusedByCall {
			// It is not on its way, but that is no proof: see payment.doubtful.
			for _, m := range good {
				m.p.doubtful = true
			}
			fl, answer, err = nil, turnedAway, errAlone
		}
		tell(good, sent{fl, answer, err})
		return nil
	}
	return good
}

// flightOfAll makes the flight of a batch.
func flightOfAll(a *account, members []*member) *flight {
	payments := make([]*payment, len(members))
	fl := &flight{by: a, shared: len(members)}
	for i, m := range members {
		payments[i] = m.p
		fl.carry(m.p)
	}
	fl.data, fl.trial = program(payments, false), program(payments, true)
	fl.gas = programGas(len(payments), len(fl.data))
	return fl
}

// flightOf makes the flight of one payment.
func flightOf(p *payment) *flight {
	to, data := p.encoded()
	fl := &flight{by: p.account, to: to, data: data, gas: p.gas()}
	fl.carry(p)
	return fl
}

// carry notes what a payment has to do with a flight besides its call.
func (fl *flight) carry(p *payment) {
	fl.places, fl.payments = append(fl.places, p.place), append(fl.payments, p)
	fl.follow(p)
}

// follow has the caller who asks for a payment now be told when another transaction takes the
// place of its flight: the caller who asked before may have gone.
func (fl *flight) follow(p *payment) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if ends := p.ends(); ends.After(fl.ends) {
		fl.ends = ends
	}
	if p.announce == nil {
		return
	}
	if fl.announces == nil {
		fl.announces = make(map[claim]func(string) error)
	}
	fl.announces[p.claim()] = p.announce
}

// ends is when the payment is not good any more.
func (p *payment) ends() time.Time { return time.Unix(p.Authorization.ValidBefore, 0) }

// trial simulates members together, and looks at the account that is to send them.
// It returns those that are good; the others are told to go alone, which tells them
// why they are not.
func (c *settler) trial(ctx context.Context, a *account, members []*member) ([]*member, view, error) {
	fl := flightOfAll(a, members)
	var (
		now            prices
		result         hexutil.Bytes
		balance        *hexutil.Big
		pending, mined hexutil.Uint64
	)
	err := c.Ask(ctx, func() chain.Batch {
		result, balance = nil, nil
		var b chain.Batch
		b.Add(&result, "eth_call", fl.simulated(), "latest")
		b.Add(&balance, "eth_getBalance", a.key.address, "latest")
		b.Add(&pending, "eth_getTransactionCount", a.key.address, "pending")
		b.Add(&mined, "eth_getTransactionCount", a.key.address, "latest")
		now.ask(&b)
		return b
	}, func(b chain.Batch) error {
		if chain.Reverted(b[0].Error) {
			result, b[0].Error = nil, nil
		}
		return now.judge(c, b)
	})
	if err != nil {
		return nil, view{}, err
	}
	if len(result) != len(members) {
		c.noBatch.Store(c.now().Add(noBatchLife).Unix())
		c.Notices.Warn("the node cannot run several payments together, so each goes alone for some time: `batch off` spares the trial")
	}
	var good []*member
	for i, m := range members {
		if succeeded(result, i, len(members)) {
			good = append(good, m)
		} else {
			m.sent = sent{answer: turnedAway, err: errAlone}
		}
	}
	v := view{block: uint64(*now.head.Number), fees: now.fees(c), balance: balance, pending: uint64(pending), mined: uint64(mined)}
	c.shared.queue.sawBalance(a, toBig(balance))
	return good, v, nil
}
