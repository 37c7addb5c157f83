package postgres

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

const (
	// maxBatch is how many payments share a round trip at most.
	maxBatch = 128
	// maxTries is how often a call is tried while others change the same row.
	maxTries = 20
	// One batch is under way in each lane, and a second when that many wait: while
	// one waits for the disk or the network, the other is with the processor.
	// More or earlier ones are smaller and cost more: with two always, a sale
	// takes a fifth more processor time, with four a half.
	workers = 2
	crowded = 48
)

// lane is where lines wait for a batch. All that wait go together, and nobody
// waits for company: the longer the database takes, the larger the batches.
type lane struct {
	durable bool
	ready   []*line
	active  int
}

// line are the calls that concern one payment, in their order: one at a time is
// on its way to the database. So callers in one process do not get into each
// other's way, and a hundred copies of a payment cost little more than two.
type line struct {
	key ledger.Key
	id  [16]byte
	ops []*op

	// row is what the row was when it was last seen here.
	row   record
	known bool
	// mustRead: what was known is not so any more.
	mustRead bool
	tries    int

	// What is being done for the first of the ops, if busy.
	read  bool
	write write
	// seq is when it was sent. What comes of it is the answer for all calls that
	// had begun by then, and for none that began later.
	seq uint64
}

// result is what came of a line's read or write.
type result struct {
	row record
	now time.Time
	// missed: the row was not the one that was judged, and is as it was.
	missed bool
}

func (l *Ledger) enqueue(o *op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	o.seq = l.seq
	if n := l.lines[o.key]; n != nil {
		n.ops = append(n.ops, o)
		return
	}
	n := &line{key: o.key, ops: []*op{o}}
	sum := sha256.Sum256([]byte(o.key))
	copy(n.id[:], sum[:])
	l.lines[o.key] = n
	l.ready(n)
}

// ready puts a line into the lane of its first call, or removes it. The caller
// has the lock.
func (l *Ledger) ready(n *line) {
	for len(n.ops) > 0 && n.ops[0].state.Load() == cancelled {
		n.pop()
	}
	if len(n.ops) == 0 {
		delete(l.lines, n.key)
		return
	}
	lane := &l.swift
	if n.ops[0].durable() {
		lane = &l.durable
	}
	lane.ready = append(lane.ready, n)
	if lane.active == 0 || lane.active < workers && len(lane.ready) >= crowded {
		lane.active++
		go l.work(lane)
	}
}

func (n *line) pop() *op {
	o := n.ops[0]
	n.ops[0] = nil
	n.ops = n.ops[1:]
	return o
}

// work does batches until there are no more.
func (l *Ledger) work(lane *lane) {
	for {
		batch := l.next(lane)
		if len(batch) == 0 {
			return
		}
		l.execute(lane.durable, batch)
	}
}

// next takes what is ready, and says what to do for each.
func (l *Ledger) next(lane *lane) (batch []*line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(lane.ready) > 0 && len(batch) < maxBatch {
		n := lane.ready[0]
		lane.ready[0] = nil
		lane.ready = lane.ready[1:]
		switch first := n.ops[0]; {
		case !l.prepare(n, first):
			l.ready(n) // its first call was cancelled
		default:
			n.seq = l.seq
			batch = append(batch, n)
		}
	}
	if len(batch) == 0 {
		lane.active--
	}
	return batch
}

// prepare decides what to do for the first call of a line. It returns false if
// that call was cancelled.
func (l *Ledger) prepare(n *line, o *op) bool {
	row, known := n.row, n.known
	if !known {
		switch o.kind {
		case claiming:
			known = true // most payments are new
		case renewing, moving:
			row, known = l.held.find(o.key, o.token)
		default:
		}
	}
	n.read = true
	if o.kind != getting && known && !n.mustRead {
		// Only a row that was read for this call can say no.
		if w, err := o.plan(row); err == nil {
			n.read, n.write = false, w
		}
	}
	if n.read {
		return o.state.Load() != cancelled
	}
	return o.state.CompareAndSwap(waiting, sent) || o.state.Load() != cancelled
}

// execute does a batch and answers its calls.
func (l *Ledger) execute(durable bool, batch []*line) {
	results, err := l.send(durable, batch)
	if err != nil && spoiled(err) && len(batch) > 1 {
		// One of them is the cause. The others shall not suffer.
		for i := range batch {
			l.execute(durable, batch[i:i+1])
		}
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, n := range batch {
		if err != nil {
			l.failed(n, err)
		} else {
			l.succeeded(n, results[i])
		}
		l.ready(n)
	}
}

// succeeded answers the calls of a line after the database has answered.
func (l *Ledger) succeeded(n *line, r result) {
	n.mustRead = false
	switch {
	case n.read:
		n.row, n.known = r.row, true
	case r.missed:
		l.held.drop(n.key)
		n.ops[0].state.CompareAndSwap(sent, waiting)
		n.known, n.mustRead = false, true
		if n.tries++; n.tries > maxTries {
			n.pop().finish(ledger.Payment{}, fmt.Errorf("%w: the payment changes all the time", ledger.ErrUnavailable))
			n.tries = 0
		}
		return
	default:
		n.pop().finish(own(r.row.payment), nil)
		n.tries = 0
		n.row, n.known = r.row, true
		if n.write.what == remove {
			n.row = record{}
		}
		l.held.put(n.key, n.row)
	}
	for len(n.ops) > 0 && n.ops[0].seq <= n.seq {
		o := n.ops[0]
		row, err := o.apply(n.row, r.now)
		if err == nil && o.kind != getting {
			return // the next to write
		}
		n.pop().finish(own(row), ownTaken(err))
	}
}

// failed answers the calls of a line whose batch has failed.
func (l *Ledger) failed(n *line, err error) {
	n.known, n.mustRead = false, false
	l.held.drop(n.key)
	if transient(err) && n.tries < maxTries {
		n.tries++
		n.ops[0].state.CompareAndSwap(sent, waiting)
		return
	}
	n.tries = 0
	unavailable := fmt.Errorf("%w: %s", ledger.ErrUnavailable, plain(err))
	o := n.pop()
	switch {
	case !n.read && !changedNothing(err):
		o.finish(ledger.Payment{}, fmt.Errorf("no answer from the database: %s", plain(err)))
	case spoiled(err):
		o.finish(ledger.Payment{}, fmt.Errorf("%w: the database does not take the payment: %s", ledger.ErrInvalid, plain(err)))
	default:
		o.finish(ledger.Payment{}, unavailable)
	}
	// Those behind it have not been sent, and would wait for the same.
	for len(n.ops) > 0 && n.ops[0].seq <= n.seq {
		n.pop().finish(ledger.Payment{}, unavailable)
	}
}
