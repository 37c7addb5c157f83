package chain

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

// MaxNodes bounds how many nodes a chain can have.
const MaxNodes = 8

// lookConfirmations is how many blocks must hold a payment before a Look calls it
// moved. It asks for more than a settlement does, since no payer waits for it.
const lookConfirmations = 3

// Look looks at EVM chains for payments in doubt. It needs nodes, and no key: it
// sends nothing. Its zero value looks at no chain; Add adds one.
type Look struct {
	// Closed is called once the connections are closed; nil if nobody wants to know.
	Closed func()

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
		c, err := New(name, networks[name], Options{Logger: logger})
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", name, err)
		}
		c.Confirmations = lookConfirmations
		if c.Development {
			c.Confirmations = 1 // the next block may never come
		}
		if err := l.Add(c); err != nil {
			return nil, fmt.Errorf("network %s: %w", name, err)
		}
	}
	return l, nil
}

// Add adds a chain. All of them are added before the Look is used. The error is for one that
// is there already.
func (l *Look) Add(c *Chain) error {
	if _, twice := l.chains[c.CAIP2]; twice {
		return fmt.Errorf("%s is named twice", c.CAIP2)
	}
	if l.chains == nil {
		l.chains = make(map[string]*Chain)
	}
	l.chains[c.CAIP2] = c
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

// Enter begins a use of the nodes, and leave ends it: Close closes no connection in between.
// The methods of Look do so themselves. A nil Look has nothing to close.
func (l *Look) Enter() (leave func()) {
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
		for _, n := range c.Nodes {
			n.close()
		}
	}
	if l.Closed != nil {
		l.Closed()
	}
}

// CheckRPC checks the name of a chain and the URLs of its nodes as they stand in
// a config, where placeholders are not resolved yet. It returns the chain's
// CAIP-2 id. Errors do not repeat the URLs.
func CheckRPC(network string, rpc []string) (caip2 string, err error) {
	n, _, err := Find(network)
	if err != nil {
		return "", err
	}
	if err := CheckNodes(rpc); err != nil {
		return "", err
	}
	for i, u := range rpc {
		if err := CheckURL(u); err != nil {
			return "", fmt.Errorf("rpc %d: %w", i+1, err)
		}
	}
	return n.CAIP2, nil
}

// CheckNodes finds a number of nodes that no chain can have: none, or more than MaxNodes.
func CheckNodes(rpc []string) error {
	switch {
	case len(rpc) == 0:
		return errors.New("rpc is missing: give the URL of a node of this chain")
	case len(rpc) > MaxNodes:
		return fmt.Errorf("%d rpc URLs; %d are enough", len(rpc), MaxNodes)
	}
	return nil
}

// Options is what a chain takes from its surroundings.
type Options struct {
	Logger *zap.Logger // of what the operator has to put right
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Dial connects to a node when it is asked for the first time; nil is Dial.
	Dial Dialer
}

// New makes a chain of its name (base) or CAIP-2 id (eip155:8453), and the URLs of its nodes,
// placeholders included. It uses no network. Errors do not repeat the URLs. One confirmation
// is enough until Confirmations says otherwise, and one node until Quorum does.
func New(name string, rpc []string, o Options) (*Chain, error) {
	network, id, err := Find(name)
	if err != nil {
		return nil, err
	}
	if err := CheckNodes(rpc); err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Dial == nil {
		o.Dial = Dial
	}
	c := &Chain{
		Name: network.Name, CAIP2: network.CAIP2, ID: id, Confirmations: 1, now: o.Now,
		Notices: newNotices(o.Logger.With(zap.String("network", network.Name)), o.Now),
	}
	local := true
	for i, raw := range rpc {
		u, err := resolveURL(raw)
		if err != nil {
			return nil, fmt.Errorf("rpc %d: %w", i+1, err)
		}
		local = local && isLoopback(u)
		c.Nodes = append(c.Nodes, newNode(u, o.Dial, o.Now))
	}
	c.Development = local && isDevelopment(network, id)
	return c, nil
}

// Find finds an EVM chain by its name or its CAIP-2 id, and returns its EIP-155 id, too.
func Find(name string) (money.Network, uint64, error) {
	n, ok := money.FindNetwork(name)
	if !ok {
		return n, 0, errors.New("there is no such chain; write a name like base, or a CAIP-2 id like eip155:8453")
	}
	id, ok := IDOf(n.CAIP2)
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
