package memory

import (
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// maxRefused is how many refused payments are kept for those who ask why.
const maxRefused = 10_000

// room knows which rows can go, and when, and what of others. A row is in one of
// the first three queues, or in none of them if it may never be forgotten.
type room struct {
	// spent are rows that go as soon as they can: claims by the end of their
	// lease, delivered payments by Keep.
	spent queue
	// refused are refused payments, by when they were refused.
	refused queue
	// owed are payments without their goods, by Keep: the ledger's last reserve.
	owed queue
	// kept are payments that have a request or an answer to shed, by when that is.
	kept queue
}

// A row has a place in each of two queues at most.
const (
	toForget = iota
	toShed
	places
)

func newRoom() room { return room{kept: queue{place: toShed}} }

// put gives a row its place, by what it is now.
func (m *room) put(r *row) {
	p := &r.payment
	if at, ok := ledger.ShedAt(*p); ok {
		m.kept.put(r, at)
	} else {
		r.leave(toShed)
	}
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
		r.leave(toForget)
	}
}

func (m *room) place(r *row, q *queue, due time.Time) {
	if r.queues[toForget].in != q {
		r.leave(toForget)
	}
	q.put(r, due)
}

func (m *room) remove(r *row) {
	for place := range r.queues {
		r.leave(place)
	}
}

// leave takes the row out of the queue that it has this place in.
func (r *row) leave(place int) {
	if q := r.queues[place].in; q != nil {
		q.remove(r)
	}
}

// makeRoom clears away a little and says whether one more row fits.
func (l *Ledger) makeRoom(now time.Time) bool {
	// Two for each new one: so the spent ones become fewer, and no Claim has to
	// wait for a large sweep.
	for range 2 {
		l.forgetFirst(&l.room.spent, now)
		l.shedFirst(now)
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

// shedFirst sheds the row that is due first, if it is.
func (l *Ledger) shedFirst(now time.Time) {
	r := l.room.kept.first()
	if r == nil {
		return
	}
	if p := r.payment; ledger.Shed(&p, now) {
		l.change(r, p)
	}
}

// queue is a binary heap of rows: the first is the one that is due first. Every
// row knows its place in it, so that it can be moved and removed.
type queue struct {
	rows []*row
	// place is which of a row's places is the one in this queue.
	place int
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
	p := &r.queues[q.place]
	if p.in == nil {
		*p = queuePlace{in: q, at: len(q.rows)}
		q.rows = append(q.rows, r)
	}
	p.due = due
	q.fix(p.at)
}

func (q *queue) remove(r *row) {
	at, last := r.queues[q.place].at, len(q.rows)-1
	q.swap(at, last)
	q.rows[last] = nil
	q.rows = q.rows[:last]
	r.queues[q.place] = queuePlace{}
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
	return q.rows[i].queues[q.place].due.Before(q.rows[j].queues[q.place].due)
}

func (q *queue) swap(i, j int) {
	q.rows[i], q.rows[j] = q.rows[j], q.rows[i]
	q.rows[i].queues[q.place].at, q.rows[j].queues[q.place].at = i, j
}
