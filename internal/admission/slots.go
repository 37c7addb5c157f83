package admission

import "sync"

// Bounds on what is under way at once. An honest agent that keeps a hundred requests
// running with one wallet does not come near them.
const (
	// maxUnsettled is how many payments may be claimed and not yet settled. Each
	// of them may hold a request to the upstream and one to a facilitator.
	maxUnsettled = 4096
	// keptForTrusted is how many of them only payers may hold who have paid lately:
	// wallets are free, so whoever has many could hold all others.
	keptForTrusted = 1024
	// maxUnsettledOfPayer is how many of them may be of one payer, whose balance
	// may be good for one.
	maxUnsettledOfPayer = 256
	// maxUnsettledOfNetwork is how many of them may come from one client network,
	// and as many again of payers there who have paid lately.
	maxUnsettledOfNetwork = 1024
)

// Slots counts the payments that are claimed and not yet settled, in all and by
// who brings them.
type Slots struct {
	mu       sync.Mutex
	all      int
	others   int // of payers who are not trusted
	of       map[Key]int
	most     int
	kept     int // of most, for trusted payers
	mostOf   int // of a payer
	mostFrom int // from a network
}

// newSlots makes the slots of a process.
func newSlots() *Slots {
	return &Slots{
		of: map[Key]int{}, most: maxUnsettled, kept: keptForTrusted, mostOf: maxUnsettledOfPayer, mostFrom: maxUnsettledOfNetwork,
	}
}

// Key is for whom a payment counts: the client's network, and the payer where
// the signature proves one, so that nobody uses up what is another's.
type Key struct {
	Payer   string // an address as package x402 spells it, or ""
	Network string
	Trusted bool
}

// shares are the two counts that a payment adds to.
func (k Key) shares() (payer, network Key) {
	return Key{Payer: k.Payer}, Key{Network: k.Network, Trusted: k.Trusted}
}

// Full says whether one more would be too many, and of what.
func (s *Slots) Full(k Key) Reason {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason(k)
}

func (s *Slots) reason(k Key) Reason {
	payer, network := k.shares()
	switch {
	case k.Payer != "" && s.of[payer] >= s.mostOf, s.of[network] >= s.mostFrom:
		return tooManyOfPayer
	case s.all >= s.most, !k.Trusted && s.others >= s.most-s.kept:
		return Busy
	}
	return ""
}

// Enter takes a slot, which must be left.
func (s *Slots) Enter(k Key) (*Slot, Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if why := s.reason(k); why != "" {
		return nil, why
	}
	s.add(k, 1)
	return &Slot{in: s, key: k}, ""
}

func (s *Slots) add(k Key, n int) {
	s.all += n
	if !k.Trusted {
		s.others += n
	}
	payer, network := k.shares()
	for _, share := range []Key{payer, network} {
		if s.of[share] += n; s.of[share] <= 0 {
			delete(s.of, share)
		}
	}
}

// Count is how many slots are taken.
func (s *Slots) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

// Slot is one place among the payments in flight.
type Slot struct {
	in   *Slots
	key  Key
	left sync.Once
}

// Leave gives the slot back; nil and what was left already have none.
func (s *Slot) Leave() {
	if s == nil {
		return
	}
	s.left.Do(func() {
		s.in.mu.Lock()
		defer s.in.mu.Unlock()
		s.in.add(s.key, -1)
	})
}
