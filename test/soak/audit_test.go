package soak

import (
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// audit counts the money. Every purchase has exactly one transfer, whatever was
// signed for it and however often, and its goods.
func (w *world) audit() {
	w.t.Helper()
	paid := w.transfers(w.t)
	ours, unconfirmed := 0, 0
	for _, p := range w.purchases {
		p.draining.Wait()
		faults := p.faults
		for _, r := range p.refusal {
			if r.moved > w.excused(p) {
				faults = append(faults, r.text)
			}
		}
		moved := 0
		for _, nonce := range p.nonces {
			tr, ok := paid[nonce]
			if !ok {
				continue
			}
			moved++
			if tr.from != p.payer() || tr.value.Cmp(big.NewInt(amount)) != 0 {
				faults = append(faults, fmt.Sprintf("transfer %s moved %s from %s", tr.tx, tr.value, tr.from))
			}
		}
		ours += moved
		switch {
		case p.unconfirmed && w.maimed.Load() && p.method == http.MethodPost && p.got == 0 && moved == 1 && w.up.started(p.path) == 1:
			unconfirmed++ // its gateway was gone before the upstream had answered
			continue
		case p.unconfirmed:
			faults = append(faults, "UNCONFIRMED: it was charged, and told that nobody knows whether it was done")
		}
		if p.got != 1 {
			faults = append(faults, fmt.Sprintf("LOST: the goods came %d times", p.got))
		}
		if moved == 0 && p.got > 0 {
			faults = append(faults, "FREE: goods, and no money has moved")
		}
		if most := 1 + w.excused(p); moved > most {
			faults = append(faults, fmt.Sprintf("DOUBLED: %d transfers", moved))
		}
		if moved == 1 && p.got == 0 {
			faults = append(faults, "CHARGED: money has moved, and there are no goods")
		}
		if n := w.up.started(p.path); p.got > 0 && n == 0 {
			faults = append(faults, "goods of an upstream that was never started")
		}
		if len(faults) > 0 {
			w.t.Errorf("%s %s by %s:\n  %s\nits story:\n  %s", p.method, p.path, p.payer(),
				strings.Join(faults, "\n  "), strings.Join(p.story, "\n  "))
		}
	}
	if ours != len(paid) {
		w.t.Errorf("%d transfers on the chain, %d of them for purchases", len(paid), ours)
	}
	balance, err := w.Balance(w.payee)
	w.must(err)
	if want := big.NewInt(int64(ours) * amount); balance.Cmp(want) != 0 {
		w.t.Errorf("the payee has %s, and %d purchases cost %s", balance, ours, want)
	}
	w.t.Logf("%d purchases, %d transfers, %s units; %d orders unconfirmed", len(w.purchases), ours, balance, unconfirmed)
}

// excused is how many payments for a purchase may have been delivered without its
// client knowing: those that are known to have been, those that may have been, and those
// of which a rude client has ended three answers, after which it has got them.
func (w *world) excused(p *purchase) int { return int(p.unseen.Load()) + w.crossed(p) + len(p.left)/3 }

// crossed counts how often a rude client hung up while the last of its goods may have
// been on the way: around the moment in which the gateway got the last thing that
// it waited for, from the upstream or from the facilitator. No server can tell
// this from a delivery, and what is delivered is bought once more when the client
// signs anew.
func (w *world) crossed(p *purchase) (n int) {
	const onTheWay = 300 * time.Millisecond
	moments := w.up.given(p.path)
	w.remote.mu.Lock()
	for _, nonce := range p.nonces {
		moments = append(moments, w.remote.answered[nonce]...)
	}
	w.remote.mu.Unlock()
	for _, left := range p.left {
		for _, moment := range moments {
			if d := left.Sub(moment); d > -onTheWay && d < onTheWay {
				n++
				break
			}
		}
	}
	return n
}

// settledRow is what the ledger says of one payment.
type settledRow struct {
	key, state, tx, amount string
	updated                time.Time
}

// compare compares the ledger with the chain: what it calls paid is what was
// paid, payment by payment, and nothing is left in doubt.
func (w *world) compare(rows []settledRow) {
	w.t.Helper()
	paid := w.transfers(w.t)
	sum, states := new(big.Int), make(map[string]int)
	for _, r := range rows {
		states[r.state]++
		switch r.state {
		case "settled", "delivering", "delivered":
			value, _ := new(big.Int).SetString(r.amount, 10)
			sum.Add(sum, value)
			nonce := common.HexToHash(r.key[strings.LastIndex(r.key, ":")+1:])
			if tr, ok := paid[nonce]; !ok || tr.tx != common.HexToHash(r.tx) {
				w.t.Errorf("ledger: %s is %s by transaction %s, in which the chain does not have it", r.key, r.state, r.tx)
			}
			delete(paid, nonce)
		case "refused", "released", "claimed":
		default:
			w.t.Errorf("ledger: %s is still %s, since %s", r.key, r.state, time.Since(r.updated).Round(time.Second))
		}
	}
	for nonce, tr := range paid {
		w.t.Errorf("ledger: the payment with nonce %s in transaction %s is in no row", nonce, tr.tx)
	}
	balance, err := w.Balance(w.payee)
	w.must(err)
	if sum.Cmp(balance) != 0 {
		w.t.Errorf("ledger: the paid rows are worth %s, and the payee has %s", sum, balance)
	}
	w.t.Logf("ledger: %v, worth %s", states, sum)
}
