package evm

import (
	"bytes"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

const (
	// maxSightings bounds how many authorizations are remembered as unused. A
	// forgotten one costs nothing but the proof that we came first.
	maxSightings = 1 << 16
	// sightingLife is how long they are remembered.
	sightingLife = 10 * time.Minute
	// recordLife is how long a payment is remembered after its authorization has
	// ended, and sweepEvery how often the others are looked for.
	recordLife = time.Hour
	sweepEvery = time.Minute
	// maxDone bounds how many settled payments are remembered. One that is forgotten is
	// found on the chain again.
	maxDone = 1 << 17
)

// payments remembers which payments this process has sent, so that a repeated
// call finds the transaction of the first one. It is no ledger: it only spares
// gas and finds receipts, because the token itself uses no authorization twice.
type payments struct {
	mu     sync.Mutex
	sent   map[claim]*record
	done   map[doneKey]done
	unused map[claim]sighting
	swept  time.Time
}

// sighting says that an authorization was unused after a block.
type sighting struct {
	block uint64
	at    time.Time
}

// sinceUnknown is for a payment that an earlier process has sent: this process has not seen
// its authorization unused, so that a use of it proves nothing.
const sinceUnknown = math.MaxUint64

// record is one payment that is being sent, or was.
type record struct {
	digest    [32]byte
	signature []byte
	value     uint256.Int // what is moved
	ends      time.Time   // when the authorization does

	// ready is closed when the first call has sent the payment, or has not. What
	// follows is written before that and read after it.
	ready  chan struct{}
	result facilitator.Settlement // if nothing was sent
	flight *flight                // if something was
	since  uint64                 // the authorization was unused after this block

	place   *place
	code    common.Hash // of the payer, if that has code
	counted sync.Once   // by the standings
}

// done is what is kept of a payment that was settled, or whose transaction was reverted or
// given up.
type done struct {
	// over: the transaction moves nothing any more, while everybody can read in it what the
	// payer signed.
	over   bool
	print  [16]byte // of what was signed, and of the amount
	hash   common.Hash
	shared int16 // as for payment.origin
	ends   int64
}

// doneKey is a hash of a claim, which is short.
type doneKey [16]byte

func (c claim) short() doneKey {
	return doneKey(crypto.Keccak256(c.keeper[:], c.payer[:], c.nonce[:]))
}

// fingerprint tells payments with one nonce apart.
func (p *payment) fingerprint() [16]byte {
	value := p.Value.Bytes32()
	return [16]byte(crypto.Keccak256(p.digest[:], value[:]))
}

// settled keeps of a payment whose money has moved what a repeated call needs.
func (s *payments) settled(p *payment, r *record, transaction common.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent[p.claim()] != r || r.flight == nil {
		return
	}
	delete(s.sent, p.claim())
	delete(s.unused, p.claim())
	s.roomForDone()
	shared := foreignCall
	if sent, _ := r.flight.sent(); slices.Contains(sent, transaction) {
		shared = r.flight.shared
	}
	s.done[p.claim().short()] = done{false, p.fingerprint(), transaction, int16(shared), r.ends.Unix()} // #nosec G115 -- at most maxBatch
}

// wasSettled returns what is kept of a payment that was settled.
func (s *payments) wasSettled(c claim) (done, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.done[c.short()]
	return d, ok && !d.over
}

// isOver lets the next call send a payment anew whose transaction was reverted, or was given
// up behind a gap of numbers. It remembers that everybody can send the payment, and that the
// transaction is not waited for again.
func (s *payments) isOver(p *payment, r *record, transaction common.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent[p.claim()] != r {
		return
	}
	delete(s.sent, p.claim())
	s.roomForDone()
	s.done[p.claim().short()] = done{over: true, hash: transaction, ends: r.ends.Unix()}
}

// public returns the transaction with the payment that was reverted or given up, if one was.
func (s *payments) public(c claim) (transaction common.Hash, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.done[c.short()]
	return d.hash, d.over
}

// roomForDone forgets some at random if there are too many.
func (s *payments) roomForDone() {
	for c := range s.done {
		if len(s.done) < maxDone {
			return
		}
		delete(s.done, c)
	}
}

// unsettle forgets that a payment was settled: the chain has forgotten it, too.
func (s *payments) unsettle(c claim, block uint64, now time.Time) {
	s.mu.Lock()
	delete(s.done, c.short())
	s.mu.Unlock()
	s.sawUnused(c, block, now)
}

// over gives back the place and the budget of a payment whose end nobody has seen.
func (r *record) over() {
	if r.place != nil {
		r.place.held.end(nil)
		r.place.landed()
	}
}

// begin returns the record of a payment, and whether the caller is the one to
// send it. Then the caller must call finish.
func (s *payments) begin(p *payment, now time.Time) (r *record, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	if r, ok := s.sent[p.claim()]; ok {
		return r, false
	}
	r = &record{
		digest:    p.digest,
		signature: p.Authorization.Signature,
		value:     p.Value,
		ends:      time.Unix(p.Authorization.ValidBefore, 0),
		ready:     make(chan struct{}),
	}
	s.sent[p.claim()] = r
	return r, true
}

// has reports whether a payment with the nonce is being sent, or was.
func (s *payments) has(c claim) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, sending := s.sent[c]
	d, settled := s.done[c.short()]
	return sending || settled && !d.over
}

// sentAs returns the record of this very payment if a transaction of it was sent; nil if
// none was, or somebody is still at it.
func (s *payments) sentAs(p *payment) *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.sent[p.claim()]
	if !ok || r.digest != p.digest || !r.value.Eq(&p.Value) {
		return nil
	}
	select {
	case <-r.ready:
		if r.flight != nil {
			return r
		}
	default:
	}
	return nil
}

// began reports whether this very payment is being sent, or was, with the same
// signature.
func (s *payments) began(p *payment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.sent[p.claim()]
	return ok && r.digest == p.digest && bytes.Equal(r.signature, p.Authorization.Signature)
}

// finish tells those who wait what became of the sending. Without a flight
// nothing was sent, and the record is forgotten.
func (s *payments) finish(p *payment, r *record, fl *flight, result facilitator.Settlement) {
	r.flight, r.result = fl, result
	close(r.ready)
	if fl == nil {
		s.forget(p.claim(), r)
	}
}

// forget lets the next call start anew.
func (s *payments) forget(c claim, r *record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent[c] == r {
		delete(s.sent, c)
	}
}

// sawUnused remembers that an authorization was unused after a block. A transaction that uses
// it later does so with what the payer sent to us.
func (s *payments) sawUnused(c claim, block uint64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unused) >= maxSightings {
		s.makeRoom(now)
	}
	s.unused[c] = sighting{block, now}
}

// unusedSince returns after which block the authorization was seen unused.
func (s *payments) unusedSince(c claim, now time.Time) (block uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, ok := s.unused[c]
	return seen.block, ok && now.Sub(seen.at) < sightingLife
}

// sweep forgets what is long over.
func (s *payments) sweep(now time.Time) {
	if now.Sub(s.swept) < sweepEvery {
		return
	}
	s.swept = now
	for c, r := range s.sent {
		select {
		case <-r.ready:
			if now.Sub(r.ends) > recordLife {
				delete(s.sent, c)
				r.over()
			}
		default: // somebody is still at it
		}
	}
	for c, d := range s.done {
		if now.Sub(time.Unix(d.ends, 0)) > recordLife {
			delete(s.done, c)
		}
	}
	s.dropOld(now)
}

// makeRoom drops the old sightings, and if these are few, others at random: many at once, so
// that it is not done for each new one. It is no LRU because a flood of junk would push out
// all others first; at random, some of them stay.
func (s *payments) makeRoom(now time.Time) {
	s.dropOld(now)
	for c := range s.unused {
		if len(s.unused) <= maxSightings*7/8 {
			return
		}
		delete(s.unused, c)
	}
}

func (s *payments) dropOld(now time.Time) {
	for c, seen := range s.unused {
		if now.Sub(seen.at) >= sightingLife {
			delete(s.unused, c)
		}
	}
}

// hashes is a list of transactions, newest last.
type hashes []common.Hash

func (h hashes) newest() string {
	if len(h) == 0 {
		return ""
	}
	return h[len(h)-1].Hex()
}
