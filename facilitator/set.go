package facilitator

import (
	"context"
	"maps"
	"slices"

	"go.uber.org/zap"
)

// Memory is what is known of a facilitator of one name and configuration: what it can do,
// whether it gives answers, and which of its networks are other chains than the ledger's.
// Whoever keeps it over a reload need not learn that again. The zero value knows nothing.
type Memory struct {
	Name    string
	Breaker Breaker
	heard   Heard
	wrong   wrongChains
}

// Up reports whether something can be sold through it on all networks, as far as is known: it
// has said what it can do, and gives answers.
func (m *Memory) Up() bool { return m.heard.isOpen() && m.Breaker.Networks() == 0 }

// Destruct lets a pool of Caddy hold it.
func (*Memory) Destruct() error { return nil }

// Member is a facilitator of a Set.
type Member struct {
	Named
	Source *Source
	wrong  *wrongChains
	// cheapest is the lowest price by network.
	cheapest map[string]Sale
}

// Sells takes note of a price that it settles on a network (CAIP-2), so that the operator
// is told when the cheapest one is below what it costs. It is called before Set.Run.
func (m *Member) Sells(network string, sale Sale) {
	if known, ok := m.cheapest[network]; ok && known.Micros.Cmp(sale.Micros) <= 0 {
		return
	}
	if m.cheapest == nil {
		m.cheapest = make(map[string]Sale)
	}
	m.cheapest[network] = sale
}

// Set has the facilitators of a configuration, by their names. It is built before it is
// used, by one goroutine.
type Set struct {
	members map[string]*Member
	wrong   []*wrongChains // of all
}

// NewSet returns a set that has nobody.
func NewSet() *Set { return &Set{members: make(map[string]*Member)} }

// Add adds a facilitator and what is known of it already.
func (s *Set) Add(f Facilitator, known *Memory, logger *zap.Logger) *Member {
	named := Named{Name: known.Name, Facilitator: f, Breaker: &known.Breaker}
	m := &Member{Named: named, Source: NewSource(named, &known.heard, logger), wrong: &known.wrong}
	s.members[known.Name], s.wrong = m, append(s.wrong, m.wrong)
	return m
}

// Get finds a facilitator by its name.
func (s *Set) Get(name string) (Named, bool) {
	m, ok := s.members[name]
	if !ok {
		return Named{}, false
	}
	return m.Named, true
}

// Member is Get with what is known of the facilitator.
func (s *Set) Member(name string) (*Member, bool) {
	m, ok := s.members[name]
	return m, ok
}

// Names are the names of all, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.members)) }

// Run asks all what they can do, and whether those that gave no answer are back, until ctx
// ends.
func (s *Set) Run(ctx context.Context, logger *zap.Logger) {
	for _, m := range s.members {
		m.Breaker.sells(m.cheapest)
		go m.Source.Run(ctx)
		go m.Breaker.Watch(ctx, m.Named, logger)
	}
}

// Witnesses are those who can look for payments on a network (CAIP-2).
func (s *Set) Witnesses(network string) []Witness { return seeing[Witness](s, network) }

// Blocks are those who can look at the blocks of a network (CAIP-2).
func (s *Set) Blocks(network string) []Blocks { return seeing[Blocks](s, network) }

// seeing are the facilitators that can look at a network in the way of T.
func seeing[T interface{ Sees(network string) bool }](s *Set, network string) (list []T) {
	for _, m := range s.members {
		if f, ok := m.Facilitator.(T); ok && f.Sees(network) {
			list = append(list, f)
		}
	}
	return list
}
