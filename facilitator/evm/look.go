package evm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/pricing/money"
)

// lookConfirmations is how many blocks must hold a payment before a Look calls it
// moved. It asks for more than a settlement does, since no payer waits for it.
const lookConfirmations = 3

// Look looks at EVM chains for payments in doubt. It needs nodes, and no key: it
// sends nothing.
type Look struct {
	chains map[string]*chain // by CAIP-2 id
	users  *users
}

// NewLook makes a Look at chains, which are named like base or eip155:8453, each
// with the URLs of its nodes. What can stand there is what can stand in the
// config, placeholders included. It uses no network. Close it after use.
func NewLook(networks map[string][]string, logger *zap.Logger) (*Look, error) {
	return newLook(networks, outside{logger: logger, now: time.Now, sleep: facilitator.Sleep, dial: dialNode})
}

func newLook(networks map[string][]string, o outside) (*Look, error) {
	l := &Look{chains: make(map[string]*chain, len(networks))}
	// In order, so that of several mistakes the same one is reported each time.
	for _, name := range slices.Sorted(maps.Keys(networks)) {
		c, err := newChain(name, networks[name], o)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", name, err)
		}
		if _, twice := l.chains[c.caip2]; twice {
			return nil, fmt.Errorf("network %s: %s is named twice", name, c.caip2)
		}
		c.confirmations = lookConfirmations
		if c.development {
			c.confirmations = 1 // the next block may never come
		}
		l.chains[c.caip2] = c
	}
	l.users = &users{last: func() { hangUp(l.chains) }}
	return l, nil
}

// Sees implements facilitator.Witness.
func (l *Look) Sees(network string) bool {
	_, ok := l.chains[network]
	return ok
}

// Witness implements facilitator.Witness, as that of Facilitator does.
func (l *Look) Witness(ctx context.Context, r facilitator.Request, since time.Time) (facilitator.Proof, error) {
	defer l.users.enter()()
	return testify(ctx, l.chains, r, since)
}

// Close closes the connections to the nodes, after the last look under way.
func (l *Look) Close() { l.users.close() }

// CheckRPC checks the name of a chain and the URLs of its nodes as they stand in
// a config, where placeholders are not resolved yet. It returns the chain's
// CAIP-2 id. Errors do not repeat the URLs.
func CheckRPC(network string, rpc []string) (caip2 string, err error) {
	n, _, err := findChain(network)
	if err != nil {
		return "", err
	}
	if err := checkCount(rpc); err != nil {
		return "", err
	}
	for i, u := range rpc {
		if err := checkURL(u); err != nil {
			return "", fmt.Errorf("rpc %d: %w", i+1, err)
		}
	}
	return n.CAIP2, nil
}

func checkCount(rpc []string) error {
	switch {
	case len(rpc) == 0:
		return errors.New("rpc is missing: give the URL of a node of this chain")
	case len(rpc) > maxRPC:
		return fmt.Errorf("%d rpc URLs; %d are enough", len(rpc), maxRPC)
	}
	return nil
}

// outside is what a chain takes from outside. Tests replace it.
type outside struct {
	logger *zap.Logger
	now    func() time.Time
	sleep  func(context.Context, time.Duration) error
	dial   dialer
}

// newChain makes a chain that can be looked at. To be settled on it needs
// accounts too.
func newChain(name string, rpc []string, o outside) (*chain, error) {
	network, id, err := findChain(name)
	if err != nil {
		return nil, err
	}
	if err := checkCount(rpc); err != nil {
		return nil, err
	}
	c := &chain{
		name: network.Name, caip2: network.CAIP2, id: id, confirmations: defaultConfirmations,
		spent: make(chan struct{}, 1),
		now:   o.now, sleep: o.sleep,
		notices: &notices{
			logger: o.logger.With(zap.String("network", network.Name)), now: o.now, told: &told{when: make(map[string]time.Time)},
		},
	}
	local := true
	for i, raw := range rpc {
		u, err := resolveURL(raw)
		if err != nil {
			return nil, fmt.Errorf("rpc %d: %w", i+1, err)
		}
		local = local && isLoopback(u)
		c.nodes = append(c.nodes, newNode(u, o.dial, o.now))
	}
	c.development = local && isDevelopment(network, id)
	return c, nil
}

// hangUp closes the connections to all nodes.
func hangUp(chains map[string]*chain) {
	for _, c := range chains {
		for _, n := range c.nodes {
			n.close()
		}
	}
}

// findChain finds an EVM chain by its name or its CAIP-2 id.
func findChain(name string) (money.Network, uint64, error) {
	n, ok := money.FindNetwork(name)
	if !ok {
		return n, 0, errors.New("there is no such chain; write a name like base, or a CAIP-2 id like eip155:8453")
	}
	id, ok := chainID(n.CAIP2)
	if !ok {
		return n, 0, fmt.Errorf("%s is no EVM chain", n.CAIP2)
	}
	return n, id, nil
}

// Interface guard
var _ facilitator.Witness = (*Look)(nil)
