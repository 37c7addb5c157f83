package evm

import (
	"context"
	"errors"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

const (
	// stuckAfter is how long a transaction may wait for a block before it is
	// sent again for a higher fee.
	stuckAfter = 30 * time.Second
	// resetAfter is how long after our last transaction a node that counts fewer transactions
	// of ours than we have sent is taken to lag. After that it is believed: the chain has
	// forgotten some.
	resetAfter = time.Minute
	// fillAfter is how long a transaction waits for one with a lower number that this
	// process has not sent, before that number is used up: another gateway may have
	// sent it, and replaces it itself after stuckAfter.
	fillAfter = 2 * stuckAfter
	// numberTries is how often another number is tried after a node has refused one.
	// numberPause bounds the pause between tries: there is none before the second try, and a
	// random, growing one before each of the others.
	numberTries             = 12
	firstPause, numberPause = 25 * time.Millisecond, 400 * time.Millisecond
	// rivalsFor is how long after another gateway with the same key has taken a number, the
	// node is asked for the next number before each transaction.
	rivalsFor = time.Minute
	// fillGas is for the transaction that does nothing but use up its number.
	fillGas = 100_000
)

// sender sends the transactions of one account, one at a time: each must have the next number,
// and one that is missing holds up all after it. Other gateways may use the same key. Then the
// node decides which of them gets a number, and the others try the next one.
type sender struct {
	taken    chan struct{} // holds one token while somebody sends
	auditing sync.Mutex    // see audit

	mu       sync.Mutex // guards what follows
	next     uint64     // the number after the highest that we used
	lastSent time.Time
	rivals   time.Time // when a number was taken from us
	reminded time.Time // when the nodes were last asked whether they know the flights
	flights  []*flight // sent and not known to be in a block, by number
	// unread are flights that are in blocks and whose cost is not known: the callers who
	// waited for their receipts may have gone. See audit.
	unread []*flight
}

// flight is a transaction number in use, with all transactions that compete for
// it: what was sent first, and what was sent in its place for higher fees. At
// most one of them will be in a block.
type flight struct {
	by     *account
	number uint64
	to     common.Address
	data   []byte
	gas    uint64
	value  *big.Int // of the chain's coin; nil is none
	// shared is how many payments it is for, if they are several. Then data is a program,
	// and trial the one that is simulated.
	shared int
	trial  []byte
	// places are what the payments have until a block holds the transaction.
	places []*place
	known  bool // a node has taken the first transaction, so that it can forget it
	// payments are what the places are of, in the same order.
	payments []*payment
	// twins are what earlier processes have sent with the number to do something else. A
	// block has one of all these. Guarded by sender.mu.
	twins []*flight

	look sync.Mutex // one looks for the others
	seen seen       // guarded by look

	mu sync.Mutex // guards what follows
	// announces are told of a transaction before it is sent, and of each that is sent in
	// its place. ends is when the last of the payments is not good any more.
	announces map[claim]func(transaction string) error
	ends      time.Time
	hashes    hashes
	raw       *types.Transaction // the newest
	fees      fees
	sentAt    time.Time
	// filling: the newest transaction does nothing but use up the number; fillers are all
	// such. again: a node has taken the newest a second time, since none showed it. bumps is
	// how often one was sent again for a higher fee.
	filling  bool
	fillers  hashes
	again    bool
	blamed   bool // it is up to its payers that its number was used up
	bumps    int
	heldBack time.Time // until when it is not sent again
	passed   bool      // a block holds a transaction with this number
	// passedAt is when it was seen that a block holds the number. concluded: what the flight
	// has cost is known and counted.
	passedAt  time.Time
	concluded bool
	// abandoned: what it settles may be sent with another number, see startOver.
	abandoned bool
}

// concludes reports whether the caller is the first who knows what the flight has cost.
func (fl *flight) concludes() bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	first := !fl.concluded
	fl.concluded = true
	return first
}

// seen is what was last seen of a flight.
type seen struct {
	receipts []*chain.Receipt
	last     uint64 // block
	at       time.Time
}

// offers is what the newest transaction pays.
func (fl *flight) offers() fees {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.fees
}

// sent returns the transactions so far, and whether one with their number is in
// a block.
func (fl *flight) sent() (hashes, bool) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return append(hashes(nil), fl.hashes...), fl.passed
}

// errNumbers is for an account whose numbers somebody else uses up.
var errNumbers = errors.New("the node takes none of our transaction numbers: is the key used elsewhere?")

// roomPause is the pause between two looks whether a transaction has landed, so that there is
// room for the next one.
const roomPause = 200 * time.Millisecond

// turn makes the caller the one who sends with an account, in the order in which they
// come, as soon as there are not too many of its transactions on their way. It must
// call leave.
func (c *settler) turn(ctx context.Context, a *account) (leave func(), err error) {
	select {
	case a.sender.taken <- struct{}{}:
	case <-ctx.Done():
		return nil, errBusy
	}
	leave = func() { <-a.sender.taken }
	for !a.sender.hasRoom() {
		if mined, _, err := c.accountNow(ctx, a); err == nil {
			c.reached(ctx, a, mined)
		}
		if a.sender.hasRoom() {
			break
		}
		a.sender.push(ctx, c)
		if c.sleep(ctx, roomPause) != nil {
			leave()
			return nil, errBusy
		}
	}
	return leave, nil
}

// sendAlone sends a payment in a transaction of its own.
func (c *settler) sendAlone(ctx context.Context, p *payment, v view) (*flight, answer, error) {
	leave, err := c.turn(ctx, p.account)
	if err != nil {
		return nil, turnedAway, err
	}
	defer leave()
	return c.send(ctx, v, flightOf(p))
}

// send sends a flight, and tells the operator what only an operator can mend. The
// caller has the turn of the account. A *leftOutError is of the payments for which it may
// cost more than there is room for, or that cannot be announced.
func (c *settler) send(ctx context.Context, v view, what *flight) (*flight, answer, error) {
	v.fees = v.fees.of(len(what.data))
	if err := c.setAside(what, v.fees, false); err != nil {
		return nil, turnedAway, err
	}
	fl, a, err := what.by.sender.send(ctx, c, v, what)
	if _, busy := isBusy(err); a == turnedAway && !busy {
		err = c.turnedAway(what.by, err)
	}
	return fl, a, err
}

// hasRoom reports whether one more transaction may be on its way.
func (s *sender) hasRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flights) < maxInFlight
}

// busy reports whether a transaction is on its way.
func (s *sender) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flights) > 0
}

// isUnended reports whether a transaction is on its way, or in a block and not read.
func (s *sender) isUnended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flights) > 0 || slices.ContainsFunc(s.unread, func(fl *flight) bool { return !fl.isRead() })
}

// send sends what a flight is for as the account's next transaction. The answer
// is never numberTaken; after turnedAway nothing was sent, and the flight is nil. The
// caller has the turn.
func (s *sender) send(ctx context.Context, c *settler, v view, what *flight) (*flight, answer, error) {
	c.reached(ctx, what.by, v.mined)
	pending := v.pending
	if s.hasRivals(c.now()) {
		pending = max(pending, c.pendingOf(ctx, what.by)) // what we saw is old by now
	}
	number := s.nextNumber(c.believable(ctx, what.by, pending, v.mined), c.now())
	for try := range numberTries {
		fl := &flight{by: what.by, number: number, to: what.to, data: what.data, gas: what.gas, value: what.value, shared: what.shared, trial: what.trial, places: what.places, payments: what.payments, announces: what.announces, ends: what.ends}
		tx, err := c.transaction(fl, v.fees)
		if err != nil {
			return nil, turnedAway, err
		}
		if err := fl.announce(tx.Hash().Hex()); err != nil {
			return nil, turnedAway, err
		}
		fl.sending(tx, v.fees, c.now(), false)
		a, err := c.broadcast(ctx, tx)
		switch a {
		case numberTaken:
			s.lostNumber(c.now())
			if try > 0 && c.sleep(ctx, rand.N(min(firstPause<<try, numberPause))) != nil {
				return nil, turnedAway, errBusy
			}
			number = c.numberAfter(ctx, what.by, number, v.mined)
			continue
		case turnedAway:
			return nil, a, err
		case taken, unclear:
			fl.known = a == taken
			s.took(fl, c.now())
		case refusedByCall:
			// The number is free for the next one. If somebody has taken the
			// transaction after all, the next one will notice.
		}
		return fl, a, err
	}
	return nil, turnedAway, c.unfit(what.by, errNumbers)
}

// announce tells those whose payments are in a transaction of it before it is sent:
// when the process ends on the next line, they are not sent a second time. The error is a
// *leftOutError.
func (fl *flight) announce(transaction string) error {
	fl.mu.Lock()
	list := maps.Clone(fl.announces)
	fl.mu.Unlock()
	var (
		wg   sync.WaitGroup // no errgroup: the error of each payment is wanted
		mu   sync.Mutex
		left = make(map[claim]error)
	)
	for of, tell := range list {
		wg.Go(func() {
			if err := tell(transaction); err != nil {
				mu.Lock()
				defer mu.Unlock()
				left[of] = &busyError{why: "the ledger does not take down what is about to be sent: " + err.Error()}
			}
		})
	}
	wg.Wait()
	return leaveOut(left)
}

// committed is the most that the transactions in flight can still cost.
func (s *sender) committed() *big.Int {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := new(big.Int)
	for _, fl := range s.flights {
		fl.mu.Lock()
		sum.Add(sum, fl.fees.total(fl.gas))
		fl.mu.Unlock()
		if fl.value != nil {
			sum.Add(sum, fl.value)
		}
	}
	return sum
}

// nextNumber chooses the number of the next transaction.
func (s *sender) nextNumber(pending uint64, now time.Time) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.flights) == 0 && pending < s.next && now.Sub(s.lastSent) > resetAfter {
		return pending // the chain has forgotten some: a reorganisation, or another chain
	}
	return max(pending, s.next)
}

// wasLost is called when a transaction of ours is in no block any more although its number
// was. If nothing else is on its way, the next number is what the node says: after a
// reorganisation the numbers of forgotten transactions are free again, and one that stays free
// holds up all after it.
func (s *sender) wasLost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.flights) == 0 {
		s.next = 0
	}
}

// hasRivals reports whether somebody else has used the key lately.
func (s *sender) hasRivals(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Sub(s.rivals) < rivalsFor
}

// lostNumber takes note of a number that somebody else was faster to use.
func (s *sender) lostNumber(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rivals = now
}

// took records a flight.
func (s *sender) took(fl *flight, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = fl.number + 1
	s.lastSent = now
	s.flights = append(s.flights, fl)
}

// prune drops the flights whose numbers are in blocks.
func (s *sender) prune(mined uint64, now time.Time) {
	for _, fl := range s.passed(mined, now) {
		for _, p := range fl.places {
			p.landed()
		}
	}
}

// passed takes out the flights whose numbers are in blocks.
func (s *sender) passed(mined uint64, now time.Time) (gone []*flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.flights[:0]
	for _, fl := range s.flights {
		if fl.number >= mined {
			kept = append(kept, fl)
			continue
		}
		for _, one := range fl.withTwins() {
			one.mu.Lock()
			one.passed, one.passedAt = true, now
			one.mu.Unlock()
		}
		gone = append(gone, fl)
	}
	clear(s.flights[len(kept):])
	s.flights = kept
	s.unread = append(slices.DeleteFunc(s.unread, (*flight).isRead), gone...)
	return gone
}

// isRead reports whether it is known what a flight has cost the budget, if anything.
func (fl *flight) isRead() bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.concluded || len(fl.payments) == 0
}

// sending records a transaction before it is sent, because an answer may never come. One that
// only uses up the number (filling) is not among those that settle what the flight is for.
func (fl *flight) sending(tx *types.Transaction, f fees, now time.Time, filling bool) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.raw, fl.fees, fl.sentAt, fl.filling, fl.again = tx, f, now, filling, false
	if filling {
		if len(tx.Data()) == 0 {
			fl.fillers = append(fl.fillers, tx.Hash())
		}
		return
	}
	if len(fl.hashes) == 0 || fl.hashes[len(fl.hashes)-1] != tx.Hash() {
		fl.hashes = append(fl.hashes, tx.Hash())
	}
}

func (fl *flight) newest() string {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.hashes.newest()
}

// transaction makes and signs the transaction of a flight.
func (c *settler) transaction(fl *flight, f fees) (*types.Transaction, error) {
	value := fl.value
	if value == nil {
		value = new(big.Int)
	}
	to := &fl.to
	if fl.shared > 0 {
		to = nil // see program
	}
	if f.legacy {
		return fl.by.key.sign(&types.LegacyTx{
			Nonce: fl.number, GasPrice: f.feeCap, Gas: fl.gas, To: to, Value: value, Data: fl.data,
		}, c.ID)
	}
	return fl.by.key.sign(&types.DynamicFeeTx{
		ChainID: new(big.Int).SetUint64(c.ID),
		Nonce:   fl.number, GasTipCap: f.tip, GasFeeCap: f.feeCap, Gas: fl.gas, To: to, Value: value, Data: fl.data,
	}, c.ID)
}
