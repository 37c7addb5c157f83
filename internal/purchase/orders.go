package purchase

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// compareWithin is how long a request waits to learn whether another one in flight
// is the same order.
const compareWithin = 2 * time.Second

// orderBook lists the requests with effects that are being sold in this process, from
// when their payment is verified on. A payer who has hung up, and signs his order anew,
// waits for the first one: the server learns of the hang-up only after it has read the
// body. Other orders of his to the same address go on beside it: those with another
// body, or, while the payer of the first one is there, with another payment-identifier or
// Idempotency-Key. Clients make new names for what they sign anew.
type orderBook struct {
	mu        sync.Mutex
	open      map[orderKey][]*order
	byPayment map[ledger.Key]*order
	held      *heldKeys
}

func newOrderBook(held *heldKeys) *orderBook {
	return &orderBook{open: map[orderKey][]*order{}, byPayment: map[ledger.Key]*order{}, held: held}
}

// orderKey is what two requests have in common that may be the same order.
type orderKey struct{ payer, line, method, host, url string }

// order is one request in the book.
type order struct {
	book    *orderBook
	key     orderKey
	payment ledger.Key
	name    string // that the payer has given it, or ""
	body    *delivery.Body
	// answer is what goes out to its payer, once the upstream has answered.
	answer atomic.Pointer[delivery.ResponseWriter]
	over   chan struct{} // closed when it has left the book
}

// enter writes an order into the book, unless it is there already, or may be: of two
// at once the second sees the first. alone says that it is in.
func (b *orderBook) enter(ctx context.Context, row ledger.Payment, name string, body *delivery.Body) (mine *order, alone bool) {
	mine = &order{book: b, key: orderKey{row.Payer, row.Line, row.Method, row.Host, row.URL}, payment: row.Key, name: name, body: body, over: make(chan struct{})}
	b.mu.Lock()
	others := slices.Clone(b.open[mine.key])
	b.open[mine.key] = append(b.open[mine.key], mine)
	b.byPayment[mine.payment] = mine
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, compareWithin)
	defer cancel()
	for _, other := range others {
		named := mine.name != "" && other.name != ""
		if named && mine.name != other.name && !b.held.hasLeft(other.paidBy()) || mine.body.Compare(ctx, other.body) == delivery.Different {
			continue
		}
		if named && mine.name == other.name || !other.isOverWithin(ctx) {
			mine.leave()
			return nil, false
		}
	}
	return mine, true
}

// isRead says whether the connection has taken all of the order's answer.
func (o *order) isRead() bool {
	answer := o.answer.Load()
	return answer != nil && answer.All.Load()
}

// isOverWithin says whether an order is over before ctx ends, of which the payer has the
// whole answer, or one that gives him nothing: he may order the same again before we have
// recorded that. It says no at once of every other one.
func (o *order) isOverWithin(ctx context.Context) bool {
	if !o.isRead() && !o.book.held.isVain(o.paidBy()) {
		return false
	}
	select {
	case <-o.over:
		return true
	case <-ctx.Done():
		return false
	}
}

// of is the order that a payment is for, or nil if none is in the book.
func (b *orderBook) of(payment ledger.Key) *order {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.byPayment[payment]
}

// paidBy is the payment that the order is for.
func (o *order) paidBy() ledger.Key {
	o.book.mu.Lock()
	defer o.book.mu.Unlock()
	return o.payment
}

// isPaidBy notes that another payment turned out to be for the order, which is owed; nil was
// never in the book.
func (o *order) isPaidBy(payment ledger.Key) {
	if o == nil {
		return
	}
	o.book.mu.Lock()
	defer o.book.mu.Unlock()
	o.forget()
	o.payment = payment
	select {
	case <-o.over:
	default:
		o.book.byPayment[payment] = o
	}
}

// forget takes the order's payment out of the book.
func (o *order) forget() {
	if o.book.byPayment[o.payment] == o {
		delete(o.book.byPayment, o.payment)
	}
}

// answered notes that the upstream has answered. If it still reads the body, the order
// leaves the book: nobody could tell it from others, and its payer is there.
func (o *order) answered(answer *delivery.ResponseWriter) {
	if o == nil {
		return
	}
	o.answer.Store(answer)
	if _, ok := o.body.Digest(); !ok {
		o.leave()
	}
}

// leave takes the order out of the book; nil was never in it.
func (o *order) leave() {
	if o == nil {
		return
	}
	o.book.mu.Lock()
	defer o.book.mu.Unlock()
	select {
	case <-o.over:
		return
	default:
		close(o.over)
	}
	o.forget()
	rest := slices.DeleteFunc(slices.Clone(o.book.open[o.key]), func(other *order) bool { return other == o })
	if len(rest) == 0 {
		delete(o.book.open, o.key)
		return
	}
	o.book.open[o.key] = rest
}
