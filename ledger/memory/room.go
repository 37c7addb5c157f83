package memory

import (
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// maxRefused is how many refused payments are kept for those who ask why.
const maxRefused = 10_000

// room knows which rows can go, and when. A row is in one of its queues, or in
// none if it may never be forgotten.
type room struct {
	// spent are rows that go as soon as they can: claims by the end of their
	// lease, delivered payments by Keep.
	spent queue
	// refused are refused payments, by when they were refused.
	refused queue
	// owed are payments without their goods, by Keep: the ledger's last reserve.
	owed queue
}

// put gives a row its place, by what it is now.
func (m *room) put(r *row) {
	p := &r.payment
	switch p.State {
	case ledger.Claimed:
		m.place(r, &m.spent, p.Lease)
	case ledger.Delivered:
		m.place(r, &m.spent, p.Keep)
	case ledger.Refused:
		m.place(r, &m.refused, p.Updated)
	case ledger.Settled, ledger.Delivering:
		due := p.Keep
		if due.Before(p.Lease) {
			due = p.Lease
		}
		m.place(r, &m.owed, due)
	default:
		m.remove(r)
	}
}

func (m *room) place(r *row, q *queue, due time.Time) {
	if r.queue.in != q {
		m.remove(r)
	}
	q.put(r, due)
}

func (m *room) remove(r *row) {
	if r.queue.in != nil {
		r.queue.in.remove(r)
	}
}

// makeRoom clears away a little and says whether one more row fits.
func (l *Ledger) makeRoom(now time.Time) bool {
	// Two for each new one: so the spent ones become fewer, and no Claim has to
	// wait for a large sweep.
	for range 2 {
		l.forgetFirst(&l.room.spent, now)
	}
	return len(l.rows) < l.max ||
		l.forgetFirst(&l.room.refused, now) ||
		l.forgetFirst(&l.room.owed, now)
}

// forgetFirst forgets the first row of a queue if it can go.
func (l *Ledger) forgetFirst(q *queue, now time.Time) bool {
	r := q.first()
	if r == nil || !ledger.Forgettable(r.payment, now) {
		return false
	}
	l.forget(r)
	return true
}

// queue is a binary heap of rows: the first is the one that is due first. Every
// row knows its place in it, so that it can be moved and removed.
type queue struct {
	rows []*row
}

// queuePlace is where a row is in which queue.
type queuePlace struct {
	in  *queue
	at  int
	due time.Time
}

func (q *queue) len() int { return len(q.rows) }

func (q *queue) first() *row {
	if len(q.rows) == 0 {
		return nil
	}
	return q.rows[0]
}

// put adds the row, or moves it if it is in the queue.
func (q *queue) put(r *row, due time.Time) {
	if r.queue.in == nil {
		r.queue = queuePlace{in: q, at: len(q.rows)}
		q.rows = append(q.rows, r)
	}
	r.queue.due = due
	q.fix(r.queue.at)
}

func (q *queue) remove(r *row) {
	at, last := r.queue.at, len(q.rows)-1
	q.swap(at, last)
	q.rows[last] = nil
	q.rows = q.rows[:last]
	r.queue = queuePlace{}
	if at < last {
		q.fix(at)
	}
}

// fix brings the row at i up or down to where it belongs.
func (q *queue) fix(i int) {
	for i > 0 && q.before(i, (i-1)/2) {
		q.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(q.rows); child++ {
			if q.before(child, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		q.swap(i, least)
		i = least
	}
}

func (q *queue) before(i, j int) bool {
	return q.rows[i].queue.due.Before(q.rows[j].queue.due)
}

func (q *queue) swap(i, j int) {
	q.rows[i], q.rows[j] = q.rows[j], q.rows[i]
	q.rows[i].queue.at, q.rows[j].queue.at = i, j
}
