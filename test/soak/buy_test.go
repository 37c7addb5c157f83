package soak

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// buy does what clients do until the goods are there or ctx ends: ask, sign,
// send. It tells every fault that it sees on the way.
//
//   - After a 402 to a payment it signs anew: a 402 says that this is safe. At
//     that moment nothing that it signed before may have moved money.
//   - After anything else that is not the goods (503, 409, a connection that
//     broke), habit says whether it sends the same payment again first.
func (p *purchase) buy(ctx context.Context, c *http.Client, origin func() string) bool {
	for ctx.Err() == nil {
		ch, ok := p.ask(ctx, c, origin())
		if !ok {
			sleep(ctx, 200*time.Millisecond)
			continue
		}
		version := x402.V1 + p.w.n(2)
		s, err := p.sign(version, ch)
		if err != nil {
			p.fault("signing: %v", err)
			return false
		}
		p.tell("signed %.8s in version %d", s.nonce.Hex()[2:], version)
		for try := 0; try <= p.habit.again && ctx.Err() == nil; try++ {
			a, err := p.request(ctx, c, origin(), s.header())
			done, anew, pause := p.judge(ctx, a, err)
			if done {
				return true
			}
			sleep(ctx, pause)
			if anew {
				break
			}
		}
	}
	return false
}

// ask asks for the price.
func (p *purchase) ask(ctx context.Context, c *http.Client, origin string) (x402.Challenge, bool) {
	a, err := p.request(ctx, c, origin, header{})
	if err != nil {
		p.tell("asked: %v", err)
		return x402.Challenge{}, false
	}
	if a.status >= 200 && a.status < 300 {
		p.fault("%v: %d", errGoods, a.status)
	}
	ch, err := x402.DecodeChallenge(a.header.Get(x402.HeaderPaymentRequired))
	if a.status != http.StatusPaymentRequired || err != nil {
		p.tell("asked: %d %s %v", a.status, a.code, err)
		return x402.Challenge{}, false
	}
	return ch, true
}

// judge looks at an answer to a payment.
func (p *purchase) judge(ctx context.Context, a *answer, err error) (done, anew bool, pause time.Duration) {
	const soon = 200 * time.Millisecond
	if err != nil {
		p.tell("sent: %v", err)
		return false, false, soon
	}
	moved := a.receipt != nil && a.receipt.Success
	p.tell("sent: %d %s moved=%v broken=%v", a.status, a.code, moved, a.broken)
	switch {
	case a.status >= 200 && a.status < 300 && a.broken == nil && string(a.body) == goods(p.path):
		p.got++
		if !moved {
			p.fault("goods without a receipt")
		}
		return true, false, 0
	case a.status >= 200 && a.status < 300 && a.broken == nil:
		p.fault("other goods: %d bytes: %.60q", len(a.body), a.body)
		return true, false, 0
	case a.code == string(x402.CodeDeliveryUnconfirmed):
		p.unconfirmed = true
		return true, false, 0
	case a.status == http.StatusPaymentRequired:
		p.check402(ctx, a)
		return false, true, soon
	}
	if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err == nil && p.habit.patient {
		return false, false, min(time.Duration(seconds)*time.Second, 10*time.Second)
	}
	return false, false, soon
}

// check402 looks whether the gateway may say that nothing has moved that was not
// delivered. The client has not seen the goods; what has moved must have been
// delivered unseen.
func (p *purchase) check402(ctx context.Context, a *answer) {
	r := refusal{text: fmt.Sprintf("402 %s though money has moved and nothing was delivered:", a.code)}
	for _, nonce := range p.nonces {
		moved, err := p.w.used(ctx, p.payer(), nonce)
		if err == nil && moved {
			r.text += fmt.Sprintf(" %.8s", nonce.Hex()[2:])
			r.moved++
		}
	}
	if r.moved > 0 {
		p.tell("%s", r.text)
		p.refusal = append(p.refusal, r) // whether they were delivered is known in the end
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
