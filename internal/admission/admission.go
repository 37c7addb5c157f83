// Package admission says who may cost us work: bounds on what is under way at once,
// tokens for what costs a facilitator or the ledger a call, the payers who fared well or
// badly lately, and the health of an upstream. It holds no money, and to forget is
// harmless.
package admission

import (
	"hash/maphash"
	"math/bits"
	"time"
)

// Reason is the machine code of a refusal; "" is none.
type Reason string

// Why somebody is refused.
const (
	tooManyOfPayer Reason = "too_many_unsettled_payments"
	Busy           Reason = "too_busy"
	tooManyHangUps Reason = "too_many_hang_ups"
	tooManyFetches Reason = "too_many_fetches"
)

// Control is the state of all bounds. It belongs to the process: a reload gives nobody
// new tokens.
type Control struct {
	Unsettled *Slots

	// Distrusted are payers who pay first for a while: their settlement was refused
	// after the upstream had run for them, or they had too much for nothing.
	Distrusted Payers
	// Trusted are payers whose money has moved lately.
	Trusted Payers
	// tabs are what payers have had of upstreams without being charged.
	tabs Recent[tab]

	// Tries are for what costs a facilitator a call, of a network and of a payer who has
	// paid lately; Strangers are for what only a facilitator can tell from junk, of a
	// network and in all; Looks are into the ledger.
	NetworkTries, PayerTries, Strangers, AllStrangers, Looks *Buckets

	// seen has for each network which payers were seen there, a mark for one in 64.
	seen Recent[uint64]
	seed maphash.Seed
}

// New makes a control that has seen nobody.
func New() *Control {
	return &Control{
		Unsettled:    newSlots(),
		NetworkTries: newBuckets(TriesPerSecond, TriesAtOnce),
		PayerTries:   newBuckets(TriesPerSecond, TriesAtOnce),
		Strangers:    newBuckets(StrangersPerSecond, StrangersAtOnce),
		AllStrangers: newBuckets(allStrangersPerSecond, allStrangersAtOnce),
		Looks:        newBuckets(looksPerSecond, looksAtOnce),
		seed:         maphash.MakeSeed(),
	}
}

// manyPayers is how many of the 64 marks of a network must be set before it seems to be
// shared: that takes some ninety payers in an hour or two.
const manyPayers = 48

// IsShared notes a payer, and says whether the network now seems to be that of many.
func (c *Control) IsShared(network, payer string, now time.Time) (many bool) {
	c.seen.Update(network, now, func(marks *uint64) {
		*marks |= 1 << (maphash.String(c.seed, payer) % 64)
		many = bits.OnesCount64(*marks) >= manyPayers
	})
	return many
}
