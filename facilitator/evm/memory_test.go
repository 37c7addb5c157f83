package evm

import (
	"math/big"
	"runtime"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// TestSettledPaymentsAreSmallAndFew: what is kept of a payment that was settled is a
// few hundred bytes, and of so many payments only.
func TestSettledPaymentsAreSmallAndFew(t *testing.T) {
	c := startChain(t)
	f, _ := c.start("base-sepolia")
	ch := f.chains[baseSepolia]
	base := c.sign(order{before: 25 * 3600})
	settle := func(n int) {
		p := must(ch.read(base))
		p.Nonce = [32]byte(common.BigToHash(big.NewInt(int64(n))))
		rec, first := ch.shared.payments.begin(p, c.now())
		if !first {
			t.Fatal(n)
		}
		p.account = ch.accounts[0]
		fl := flightOf(p)
		fl.number = uint64(n)
		tx := must(ch.transaction(fl, market(big.NewInt(1e9), big.NewInt(1e9), nil)))
		fl.sending(tx, market(big.NewInt(1e9), big.NewInt(1e9), nil), time.Now(), false)
		ch.shared.payments.sawUnused(p.claim(), 5, c.now())
		ch.shared.payments.finish(p, rec, fl, facilitator.Settlement{})
		ch.sawOutcome(p, rec, settled(p, &chain.Receipt{Transaction: tx.Hash()}))
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const n = 2_000
	before := heap()
	for i := range n {
		settle(i)
	}
	if each := (heap() - before) / n; each > 300 {
		t.Errorf("%d bytes for each payment", each)
	}
	for i := range maxDone - len(ch.shared.payments.done) {
		ch.shared.payments.done[claim{nonce: common.BigToHash(big.NewInt(int64(i)))}.short()] = done{}
	}
	for i := range 100 {
		settle(n + i)
	}
	if len(ch.shared.payments.done) > maxDone {
		t.Errorf("%d are kept", len(ch.shared.payments.done))
	}
	if len(ch.shared.payments.sent) != 0 {
		t.Errorf("%d are kept as if they were on their way", len(ch.shared.payments.sent))
	}
	runtime.KeepAlive(f)
}
