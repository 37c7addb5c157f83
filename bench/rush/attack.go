//go:build linux

package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
)

// attack is how attackers behave.
type attack struct {
	attackers, rate, before, regulars, wallets int
}

const (
	// networksOf is from how many networks one attacker sends, and openOf how many
	// answers he waits for at once.
	networksOf, openOf = 16, 512
)

// highTip and lowTip put a transaction before and behind those of the gateway, which
// offers the gwei that anvil names.
var highTip, lowTip = big.NewInt(3e9), big.NewInt(1)

// attackers send payments that look good whenever they are simulated and are not in
// the next block. Those who have money move it on in each block before the gateway's
// transactions. Those who have wallets have code that burns all gas in the middle of
// each block, and says yes at its end.
type attackers struct {
	list    []*attacker
	sent    atomic.Int64
	skipped atomic.Int64 // while too many answers were awaited
	numbers atomic.Int64

	mu   sync.Mutex
	told map[string]int
}

type attacker struct {
	index   int
	signer  *signer
	wallets []*wallet        // who have the money in turn, or the owner of contracts
	codes   []common.Address // contract wallets; none: it attacks with money
	flag    common.Address   // that the code reads
	turn    atomic.Int64     // the block's
	nonce   uint64
}

// addresses are all that they pay with.
func (s *attackers) addresses() map[common.Address]bool {
	all := make(map[common.Address]bool)
	for _, a := range s.list {
		for _, w := range a.wallets {
			all[w.address] = true
		}
		for _, c := range a.codes {
			all[c] = true
		}
	}
	return all
}

// bought is how many numbers they have, and have paid for.
func (s *attackers) bought() int { return int(s.numbers.Load()) }

// newAttackers gives attackers what they need.
func (r *rush) newAttackers(ctx context.Context, s *signer) (*attackers, error) {
	all := &attackers{told: make(map[string]int)}
	blocks := (r.attack.before+r.patience)/r.block + 10
	for i := range r.attack.attackers {
		a := &attacker{index: i, signer: s}
		if i%2 == 0 {
			a.wallets = newWallets(blocks)
			if err := r.chain.fund(ctx, addresses(a.wallets[:1]), s.value.ToBig()); err != nil {
				return nil, err
			}
		} else if err := a.deploy(ctx, r.chain, r.attack.wallets); err != nil {
			return nil, err
		}
		if err := r.chain.enrich(ctx, addresses(a.wallets)); err != nil {
			return nil, err
		}
		all.list = append(all.list, a)
	}
	return all, nil
}

// deploy puts a flag there that its owner can raise, and wallets that burn all gas
// while it is raised. No two have the same code.
func (a *attacker) deploy(ctx context.Context, c *chain, wallets int) error {
	a.wallets = newWallets(1)
	a.flag = crypto.CreateAddress(a.wallets[0].address, 0)
	// With data: store it in slot 0. Without: return that.
	if err := c.setCode(ctx, a.flag, "0x36600f5760005460005260206000f35b60003560005500"); err != nil {
		return err
	}
	for i := range wallets {
		at := crypto.CreateAddress(a.wallets[0].address, uint64(1+i))
		// staticcall(gas, flag, 0, 0, 0, 32); if that says 0, return 0x1626ba7e, else
		// jump to 0x36 for ever. What is behind is never run.
		code := "0x602060006000600073" + hex.EncodeToString(a.flag[:]) + "5afa50" + "600051603657" +
			"631626ba7e60e01b60005260206000f3" + "5b603656" + fmt.Sprintf("%08x", a.index<<16|i)
		if err := c.setCode(ctx, at, code); err != nil {
			return err
		}
		a.codes = append(a.codes, at)
	}
	return c.fund(ctx, a.codes, a.signer.value.ToBig())
}

// run attacks until ctx ends, and returns when the last answer is there.
func (s *attackers) run(ctx context.Context, r *rush) {
	var wg sync.WaitGroup
	for _, a := range s.list {
		wg.Go(func() { s.flood(ctx, r, a) })
	}
	if len(s.list) > 0 {
		wg.Go(func() {
			for {
				for _, a := range s.list {
					a.move(r.chain)
				}
				select {
				case <-r.chain.heads:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	wg.Wait()
}

// flood sends payments, as many a second as it may.
func (s *attackers) flood(ctx context.Context, r *rush, a *attacker) {
	every := time.NewTicker(time.Second / time.Duration(r.attack.rate))
	defer every.Stop()
	open := make(chan struct{}, openOf)
	var wg sync.WaitGroup
	defer wg.Wait()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		select {
		case open <- struct{}{}:
		default:
			s.skipped.Add(1)
			continue
		}
		wg.Go(func() {
			defer func() { <-open }()
			s.note(a.send(r, n))
		})
	}
}

func (s *attackers) note(got answer, err error) {
	s.sent.Add(1)
	says := got.says
	switch {
	case err != nil:
		says = "no answer: " + err.Error()
	case got.number > 0:
		s.numbers.Add(1)
		says = "200"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told[says]++
}

// send sends a payment that was never seen.
func (a *attacker) send(r *rush, n int) (answer, error) {
	w := a.wallets[int(a.turn.Load())%len(a.wallets)]
	payer := w.address
	if len(a.codes) > 0 {
		payer = a.codes[n%len(a.codes)]
	}
	request, err := a.signer.request(w, payer, a.from(r, n))
	if err != nil {
		return answer{}, err
	}
	l, err := dial(r.gateway.address)
	if err != nil {
		return answer{}, err
	}
	defer l.close()
	return l.send(request)
}

func (a *attacker) from(r *rush, n int) net.IP {
	return addressIn(r.networks+a.index*networksOf+n%networksOf, n/networksOf)
}

// move makes the next block another world than this one: the money is elsewhere
// before the gateway's transactions are run, or the flag is raised meanwhile.
func (a *attacker) move(c *chain) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if len(a.codes) > 0 {
		_ = a.transact(ctx, c, a.wallets[0], a.nonce, a.flag, word(1), highTip)
		_ = a.transact(ctx, c, a.wallets[0], a.nonce+1, a.flag, word(0), lowTip)
		a.nonce += 2
		return
	}
	// The money is where the last block left it: if it was fast, with the next one.
	now := int(a.turn.Load())
	if now+1 < len(a.wallets) && a.has(ctx, c, a.wallets[now+1].address) {
		now++
		a.turn.Store(int64(now))
	}
	next := now + 1
	if next >= len(a.wallets) || !a.has(ctx, c, a.wallets[now].address) {
		return // the mint has it
	}
	data := append(crypto.Keccak256([]byte("transfer(address,uint256)"))[:4], common.LeftPadBytes(a.wallets[next].address[:], 32)...)
	data = append(data, common.LeftPadBytes(a.signer.value.Bytes(), 32)...)
	_ = a.transact(ctx, c, a.wallets[now], 0, dollar, data, highTip)
}

func (a *attacker) has(ctx context.Context, c *chain, account common.Address) bool {
	var b hexutil.Bytes
	data := append(crypto.Keccak256([]byte("balanceOf(address)"))[:4], common.LeftPadBytes(account[:], 32)...)
	err := c.client.CallContext(ctx, &b, "eth_call", map[string]any{"to": dollar, "data": hexutil.Bytes(data)}, "latest")
	return err == nil && new(big.Int).SetBytes(b).Cmp(a.signer.value.ToBig()) >= 0
}

func (a *attacker) transact(ctx context.Context, c *chain, from *wallet, nonce uint64, to common.Address, data []byte, tip *big.Int) error {
	id := big.NewInt(chainID)
	tx, err := types.SignNewTx(from.key, types.LatestSignerForChainID(id), &types.DynamicFeeTx{
		ChainID: id, Nonce: nonce, GasTipCap: tip, GasFeeCap: big.NewInt(1000e9), Gas: 150_000, To: &to, Data: data,
	})
	if err != nil {
		return err
	}
	raw, err := tx.MarshalBinary()
	if err != nil {
		return err
	}
	return c.client.CallContext(ctx, nil, "eth_sendRawTransaction", hexutil.Bytes(raw))
}
