package evm

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/pricing/money"
)

// maxRPC bounds how many nodes a chain can have.
const maxRPC = 8

// lookConfirmations is how many blocks must hold a payment before a Look calls it
// moved. It asks for more than a settlement does, since no payer waits for it.
const lookConfirmations = 3

// Look looks at EVM chains for payments in doubt. It needs nodes, and no key: it
// sends nothing. Its zero value looks at no chain; Add adds one.
type Look struct {
	// Closed is called once the connections are closed; nil if nobody wants to know.
	closed func()

	chains map[string]*Chain // by CAIP-2 id
	users  users
}

// NewLook makes a Look at chains, which are named like base or eip155:8453, each
// with the URLs of its nodes. What can stand there is what can stand in the
// config, placeholders included. It uses no network. Close it after use.
func NewLook(networks map[string][]string, logger *zap.Logger) (*Look, error) {
	l := new(Look)
	// In order, so that of several mistakes the same one is reported each time.
	for _, name := range slices.Sorted(maps.Keys(networks)) {
		c, err := newChain(name, networks[name], outside{logger: logger})
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", name, err)
		}
		c.confirmations = lookConfirmations
		if c.development {
			c.confirmations = 1 // the next block may never come
		}
		if err := l.add(c); err != nil {
			return nil, fmt.Errorf("network %s: %w", name, err)
		}
	}
	return l, nil
}

// add adds a chain before the Look is used. The error is for one that is there already.
func (l *Look) add(c *Chain) error {
	if _, twice := l.chains[c.caip2]; twice {
		return fmt.Errorf("%s is named twice", c.caip2)
	}
	if l.chains == nil {
		l.chains = make(map[string]*Chain)
	}
	l.chains[c.caip2] = c
	return nil
}

// of returns the chain with a CAIP-2 id.
func (l *Look) of(network string) (*Chain, error) {
	if l != nil {
		if c, ok := l.chains[network]; ok {
			return c, nil
		}
	}
	return nil, fmt.Errorf("the network %q is not configured here", network)
}

// enter begins a use of the nodes, during which Close closes no connection; the function
// that it returns ends it.
func (l *Look) enter() (leave func()) {
	if l == nil {
		return func() {} // there is nothing to close
	}
	return l.users.enter()
}

// Close closes the connections to the nodes, after the last look under way.
func (l *Look) Close() {
	if l != nil {
		l.users.close(l.hangUp)
	}
}

// hangUp closes the connections to all nodes.
func (l *Look) hangUp() {
	for _, c := range l.chains {
		for _, n := range c.nodes {
			n.close()
		}
	}
	if l.closed != nil {
		l.closed()
	}
}

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

// outside is what a chain takes from outside.
type outside struct {
	logger *zap.Logger
	// now is the clock; nil is time.Now.
	now func() time.Time
	// dial connects to a node when it is asked for the first time; nil is HTTP or a
	// WebSocket, by the scheme of the URL, with no redirects followed.
	dial dialer
}

// newChain makes a chain of its name (base) or CAIP-2 id (eip155:8453), and the URLs of
// its nodes, placeholders included. It uses no network. Errors do not repeat the URLs. One
// confirmation is enough until Confirmations says otherwise, and one node until Quorum
// does.
func newChain(name string, rpc []string, o outside) (*Chain, error) {
	network, id, err := findChain(name)
	if err != nil {
		return nil, err
	}
	if err := checkCount(rpc); err != nil {
		return nil, err
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.dial == nil {
		o.dial = dialNode
	}
	c := &Chain{
		name: network.Name, caip2: network.CAIP2, id: id, confirmations: 1, now: o.now,
		notices: newNotices(o.logger.With(zap.String("network", network.Name)), o.now),
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

// users counts the calls under way, so that what they use is closed after the
// last: a reload does not wait for payments.
type users struct {
	mu   sync.Mutex
	n    int
	last func() // nil until close
}

// enter begins a call; the function that it returns ends it.
func (u *users) enter() (leave func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n++
	return u.leave
}

func (u *users) leave() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n--
	u.closeIfIdle()
}

// close has last called as soon as no call is under way.
func (u *users) close(last func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last = last
	u.closeIfIdle()
}

func (u *users) closeIfIdle() {
	if u.last != nil && u.n == 0 {
		u.last()
	}
}
