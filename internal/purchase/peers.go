package purchase

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Several gateways may share a ledger. What this process knows of the purchases that it
// holds, and what no row tells, the others ask for: whether the payer is still there, and
// which order it is.

// account is what a gateway says of a purchase that it holds.
type account struct {
	// Lost: the payer may come again for what he has not got, or nobody serves him.
	Lost bool `json:"lost,omitempty"`
	// Order: it is in the book of orders; Name and Body tell it from others. The name is a
	// hash, as it is its payer's secret.
	Order bool   `json:"order,omitempty"`
	Name  string `json:"name,omitempty"`
	Body  string `json:"body,omitempty"`
	// Read: the payer has all of the order's answer.
	Read bool `json:"read,omitempty"`
}

// askAgainAfter is how soon a gateway is asked again whose order has not come so far.
const askAgainAfter = 250 * time.Millisecond

// sketchWithin is how long a gateway that is asked waits for the body of an order.
const sketchWithin = time.Second

// Account answers another gateway that asks about a payment which is held here, or whose
// answer is being kept here. unrecorded says that something of it is not in the ledger yet.
func (s *Shared) Account(ctx context.Context, key ledger.Key, heldHere bool, unrecorded func(ledger.Key) bool) []byte {
	if !heldHere && !s.Held.has(key) {
		return nil
	}
	var a account
	if o := s.Orders.of(key); o != nil {
		ctx, cancel := context.WithTimeout(ctx, sketchWithin)
		defer cancel()
		a.Order, a.Name, a.Body, a.Read = true, hashName(o.name), o.body.Sketch(ctx), o.isRead()
	}
	// Held for no request, it is a payment that somebody finds out about.
	a.Lost = s.Held.isLost(key) || unrecorded(key) || !s.Held.has(key)
	said, err := json.Marshal(a)
	if err != nil {
		return nil
	}
	return said
}

func hashName(name string) string {
	if name == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:16])
}

// askHolder asks the other gateways about a payment.
func (p *Purchase) askHolder(ctx context.Context, key ledger.Key) (a account, err error) {
	said, err := p.desk.Settler.Ledger.AskHolder(ctx, key)
	if err == nil {
		err = json.Unmarshal(said, &a)
	}
	return a, err
}

// isApart asks the gateway that holds another purchase of this payer, for the same
// address, whether that is another one than this. It says no if nobody answers, or if
// that cannot be told: then this one waits. gone says that nobody answers: that gateway may
// be dead until its lease ends.
func (p *Purchase) isApart(r *http.Request, row ledger.Payment) (apart, gone bool) {
	// Longer than one question may take, or nobody could tell that a gateway is gone.
	ctx, cancel := context.WithTimeout(r.Context(), 2*compareWithin)
	defer cancel()
	for {
		a, err := p.askHolder(ctx, row.Key)
		switch {
		case err != nil:
			return false, errors.Is(err, ledger.ErrNoAnswer)
		case a.Lost:
			return false, false
		case p.hold.order == nil:
			return true, false // somebody is being served
		case a.Order:
			name := hashName(p.orderName(r))
			return name != "" && a.Name != "" && name != a.Name ||
				delivery.CompareSketches(a.Body, p.ask.Body.Sketch(ctx)) == delivery.Different, false
		}
		// It has not come so far.
		select {
		case <-ctx.Done():
			return false, false
		case <-time.After(askAgainAfter):
		}
	}
}

// isKeptElsewhere says whether another gateway is keeping the answer of a purchase, or may
// be: then it can be had soon.
func (p *Purchase) isKeptElsewhere(row ledger.Payment) bool {
	if p.hold.key == row.Key {
		return false
	}
	ctx, cancel := context.WithTimeout(p.ask.Payer, 2*compareWithin)
	defer cancel()
	_, err := p.askHolder(ctx, row.Key)
	return err == nil
}
