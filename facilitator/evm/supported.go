package evm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// supportedTimeout bounds the look at all chains.
const supportedTimeout = 10 * time.Second

// Supported implements facilitator.Facilitator. It looks at each chain, so that
// the log says early what a payer would meet later. A chain whose nodes cannot
// be asked is listed all the same, because they may be back soon; one whose
// nodes are on another chain is not. It fails when no chain can be used.
func (f *Facilitator) Supported(ctx context.Context) (x402.Supported, error) {
	defer f.looking.Enter()()
	ctx, cancel := context.WithTimeout(ctx, supportedTimeout)
	defer cancel()
	ids := slices.Sorted(maps.Keys(f.chains))
	errs, elsewhere := make([]error, len(ids)), make([]bool, len(ids))
	var wg sync.WaitGroup // no errgroup: the error of each chain is wanted
	for i, id := range ids {
		wg.Go(func() { elsewhere[i], errs[i] = f.chains[id].probe(ctx) })
	}
	wg.Wait()

	s := x402.Supported{Kinds: []x402.Kind{}, Extensions: []string{}, Signers: map[string][]string{}}
	var usable bool
	for i, id := range ids {
		c := f.chains[id]
		usable = usable || errs[i] == nil
		if elsewhere[i] {
			continue
		}
		s.Kinds = append(s.Kinds, c.kinds()...)
		for _, e := range c.extensions() {
			if !slices.Contains(s.Extensions, e) {
				s.Extensions = append(s.Extensions, e)
			}
		}
		for _, a := range c.accounts {
			if address := a.key.address.Hex(); !slices.Contains(s.Signers["eip155:*"], address) {
				s.Signers["eip155:*"] = append(s.Signers["eip155:*"], address)
			}
		}
	}
	if !usable {
		return x402.Supported{}, failure("supported", errors.Join(errs...))
	}
	return s, nil
}

// kinds lists what can be settled on the chain.
func (c *settler) kinds() []x402.Kind {
	kinds := []x402.Kind{{X402Version: x402.V2, Scheme: x402.SchemeExact, Network: c.CAIP2}}
	if c.has(chain.UptoProxy) {
		// Payers name the facilitator that may settle. It is always the first of our
		// accounts, so that offers do not change from one answer to the next.
		extra := jsontext.Value(`{"facilitatorAddress":"` + c.accounts[0].key.address.Hex() + `"}`)
		kinds = append(kinds, x402.Kind{X402Version: x402.V2, Scheme: x402.SchemeUpto, Network: c.CAIP2, Extra: extra})
	}
	if legacy, _ := x402.LegacyNetwork(c.CAIP2); legacy != "" {
		kinds = append(kinds, x402.Kind{X402Version: x402.V1, Scheme: x402.SchemeExact, Network: legacy})
	}
	return kinds
}

// extensions lists what is offered to payers of Permit2 prices.
func (c *settler) extensions() []string {
	switch {
	case !c.has(chain.ExactProxy) && !c.has(chain.UptoProxy):
		return nil
	case c.sponsorsApprovals():
		return []string{eip2612Extension, approvalExtension}
	}
	return []string{eip2612Extension}
}

// has reports whether a contract of x402 is on the chain, as far as the last probe
// found out: a node that cannot be asked takes nothing away.
func (c *settler) has(contract common.Address) bool {
	_, lacks := c.lacking.Load(contract)
	return !lacks
}

// probe checks that a node of the chain can be asked, and says whether all of
// them are on another chain.
func (c *settler) probe(ctx context.Context) (elsewhere bool, err error) {
	wrong := 0
	var (
		id          hexutil.Uint64
		h           *chain.Head
		balances    = make([]*hexutil.Big, len(c.accounts))
		exact, upto hexutil.Bytes
	)
	err = c.Ask(ctx, func() chain.Batch {
		id, h, exact, upto = 0, nil, nil, nil
		var b chain.Batch
		b.Add(&id, "eth_chainId")
		b.Add(&h, "eth_getBlockByNumber", "latest", false)
		b.Add(&exact, "eth_getCode", chain.ExactProxy, "latest")
		b.Add(&upto, "eth_getCode", chain.UptoProxy, "latest")
		for i, a := range c.accounts {
			balances[i] = nil
			b.Add(&balances[i], "eth_getBalance", a.key.address, "latest")
		}
		return b
	}, func(b chain.Batch) error {
		if err := b.Err(); err != nil {
			return err
		}
		err := c.CheckNode(id, h)
		if _, ok := errors.AsType[*chain.WrongChainError](err); ok {
			wrong++
		}
		return err
	})
	if err != nil {
		return wrong == len(c.Nodes), fmt.Errorf("network %s: %w", c.Name, err)
	}
	for proxy, code := range map[common.Address]hexutil.Bytes{chain.ExactProxy: exact, chain.UptoProxy: upto} {
		if len(code) == 0 {
			c.lacking.Store(proxy, true)
		} else {
			c.lacking.Delete(proxy)
		}
	}
	var empty []*account
	for i, a := range c.accounts {
		balance := toBig(balances[i])
		c.shared.queue.sawBalance(a, balance)
		if balance == nil || balance.Sign() == 0 {
			c.shared.queue.setAside(a, c.now())
			empty = append(empty, a)
		} else {
			c.shared.queue.bringBack(a)
		}
	}
	for _, a := range empty {
		c.noGas(a)
	}
	return false, nil
}
