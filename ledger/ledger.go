// Package ledger is what the gate remembers of payments: their states, the
// rules between the states, and the Ledger interface. It is pure; the stores
// are in the packages below it.
//
// # The rules
//
// This is every way in which a payment can change. What is not here cannot
// happen, in any store. By Claim and Take anybody becomes the holder; Move is
// for the holder.
//
//	from        to          by     if                                lease   doubt
//	-           claimed     Claim                                    starts
//	released    claimed     Claim                                    starts
//	refused     claimed     Claim                                    starts
//	claimed     claimed     Claim  nobody holds                      starts
//	claimed     settling    Move   lease runs                        stays
//	claimed     released    Move                                     ends
//	settling    settling    Move   lease runs                        stays   set
//	settling    settling    Take   nobody holds                      starts  set
//	settling    settled     Move                                     stays
//	settling    unknown     Move                                     ends    set
//	settling    refused     Move   no doubt or proven                ends
//	settling    released    Move   no doubt                          ends
//	unknown     settling    Take   nobody holds                      starts  set
//	settled     delivering  Move   lease runs                        stays
//	settled     delivering  Take   nobody holds                      starts
//	settled     settled     Move                                     ends
//	settled     settling    Move   lease runs, reorganised           stays   set
//	delivering  delivered   Move                                     ends
//	delivering  settled     Move                                     ends
//	delivering  delivering  Move   lease runs                        stays
//	delivering  delivering  Take   nobody holds                      starts
//	delivering  settling    Move   lease runs, reorganised           stays   set
//	delivered   delivered   Take   nobody holds                      starts
//	delivered   delivered   Move   reorganised                       ends
//
// Why they are so:
//
//   - A holder that begins something (asking for money, sending goods) must
//     have a lease that still runs, or two might begin. One that only records
//     what has happened needs no more than the token: nobody has touched the row
//     since, and what happened must not be lost.
//   - A row becomes free (claimable) only when no money can have moved: out of
//     claimed, where nobody was asked; out of settling by released, when in the
//     end nobody was asked; by refused, on a definite no to the first and only
//     question, or when the chain proves it.
//   - Whoever asks a second time, or finds that somebody may have asked, sets
//     doubt. To a second question "no" may mean "I did that already", so the
//     ways back to free are closed but for a proof.
//   - Settled to settled is how a holder that will not deliver (the reconciler,
//     a handler whose client is gone) lets go, so that the payer need not wait
//     for the lease.
//   - Delivering to delivering by its holder records what the upstream has said
//     so far: one that acted must not be made to act again, whatever comes.
//   - A reorganisation takes a settlement back while the goods have not arrived.
//     Who finds one takes the row to delivering, so that nobody delivers
//     meanwhile, and moves it to settling. What was delivered stays so: of it
//     the row can only say that the money is gone, or back.
//   - A holder that lost its claim and then learns that the money has moved
//     takes the row to settling when it can, and says so. The present holder
//     cannot make the row free meanwhile, for it is in doubt.
//   - In every state somebody can go on once the lease is over, in delivered only
//     with a reorganisation.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// State is where a payment stands.
type State string

// The states of a payment.
const (
	// Claimed: one request holds the authorization; nothing has been asked of
	// anybody that could move money.
	Claimed State = "claimed"
	// Settling: a facilitator is being asked to move the money, or was.
	Settling State = "settling"
	// Settled: the money has moved; the goods have not arrived.
	Settled State = "settled"
	// Delivering: the goods are on their way to the payer.
	Delivering State = "delivering"
	// Delivered: the payer has the goods. Final; see Change.Reorganised.
	Delivered State = "delivered"
	// Released: the holder let go before money could move. The authorization is
	// free again.
	Released State = "released"
	// Refused: nothing has moved, on the word of the facilitator or the chain.
	// The authorization may be tried again.
	Refused State = "refused"
	// Unknown: the money may have moved.
	Unknown State = "unknown"
)

// Key names an authorization: what the payer signed, never how it was spelled.
// x402.Authorization makes it. It is valid UTF-8 without NUL.
type Key string

// Token proves that its holder holds the claim. It is random and changes with
// every Claim and Take; see NewToken.
type Token string

// Payment is one row of the ledger.
type Payment struct {
	Key Key
	// ID is the payment's name in logs, receipts and commands; see ID.
	ID    string
	State State
	// Doubt is set once a settlement was asked for and its answer is not known.
	// From then on no word of a facilitator proves that nothing moved.
	Doubt bool

	// What was signed.
	Scheme, Network, Asset, PayTo, Payer string
	// Amount is in atomic units, a decimal string.
	Amount string
	// ValidBefore is when the authorization ends; zero if the scheme has none.
	ValidBefore time.Time

	// What was asked for. Host is lower case, URL is path and query as received:
	// it may hold bytes that are not UTF-8.
	Method, Host, URL string
	// Line is the identity of the price line that sold it: the gate in which the line
	// stands, and what it says apart from its price. "" is no line.
	Line string
	// Client is the payer's network, /24 or /64.
	Client string
	// Identifier is the payment-identifier that the payer gave, or "".
	Identifier string
	// Effects: the request may have had effects, by its method or by one that it
	// names elsewhere, so the upstream must not be asked again once it has acted.
	Effects bool
	// Body is the digest of the request's body, with its length, or "" while the body
	// has not been read to its end. It tells other requests to one URL apart.
	Body string

	// What became of it.
	Facilitator string
	Transaction string
	Reason      string
	// Status is the upstream's status of the latest run, 0 if there was none.
	Status int
	// Runs counts how often the upstream answered for this payment with what is
	// charged.
	Runs int
	// Ended counts how often the payer ended such an answer himself, when he had a good
	// part of it.
	Ended int

	// Request is the facilitator's request (JSON), kept while a settlement may
	// have to be repeated in identical words: it holds the payer's signature, so
	// it goes when the row is delivered, refused or released.
	Request []byte
	// Answer is the upstream's answer, encoded by the gate, kept where it broke
	// off on its way to the payer and the upstream must not act again. It goes
	// when the row is delivered.
	Answer []byte

	Created, Updated time.Time
	// Lease is until when the present holder holds; zero when nobody does.
	Lease time.Time
	// FetchBy is until when what was paid for and not delivered can be fetched; zero:
	// as long as the row is kept. After that Request and Answer of a settled row serve
	// nobody, and the store forgets them.
	FetchBy time.Time
	// Keep is until when the row must be remembered, unless it is free anyway; see
	// Forgettable. It is never before ValidBefore.
	Keep time.Time
}

// Claim is the exclusive hold on a payment.
type Claim struct {
	Token   Token
	Payment Payment
}

// Change is a transition that the holder of a claim wants, with the facts that
// became known. Empty facts leave what the row has.
type Change struct {
	To          State
	Facilitator string
	Transaction string
	Payer       string
	Amount      string
	Reason      string
	Status      int
	Body        string
	Request     []byte
	Answer      []byte
	// Runs and Ended add to the counts of the same names.
	Runs, Ended int
	// Announces says that nothing is in doubt: a settlement names the transaction that
	// it is about to send, or the change is made once more whose answer was lost.
	Announces bool
	// Proven says that nothing moved in spite of doubt, and allows Refused: the
	// chain itself shows that nothing did and nothing can any more, or the holder,
	// who alone has asked, and once, has got a definite no.
	Proven bool
	// Reorganised says that the chain took a settlement back; it allows the way
	// from Settled and Delivering to Settling. Of a Delivered row it allows to
	// record what became of the money since: there the change says all of Reason,
	// and an empty one takes away what the row has.
	Reorganised bool
}

// Filter selects rows for List; zero fields select all.
type Filter struct {
	States            []State
	Payer             string
	Identifier        string
	Method, Host, URL string
	// Since and Until bound Created: Since <= Created < Until.
	Since, Until time.Time
	// Limit is how many rows at most.
	Limit int
	// Brief leaves the Request out, and of the Answer all but its first BriefAnswer bytes:
	// there may be many rows, and these are the large parts of them.
	Brief bool
}

// StatusBegan is the status of an upstream that was asked and has not answered: no answer
// has it (RFC 2518 10.1). Where a process ends then, nobody knows whether it has acted.
const StatusBegan = 102

// BriefAnswer is how many bytes of an answer a brief List gives.
const BriefAnswer = 32

// Errors of every Ledger.
var (
	// ErrNotFound: the ledger has no such payment.
	ErrNotFound = errors.New("no such payment")
	// ErrLost: the claim is no longer held: its lease ran out, or another took
	// it, or the rules do not allow the change in the state of the row. Nothing
	// has changed.
	ErrLost = errors.New("claim lost")
	// ErrFull: the ledger cannot take more payments without forgetting live ones.
	ErrFull = errors.New("ledger full")
	// ErrUnavailable: the ledger cannot be asked now. Nothing has changed.
	ErrUnavailable = errors.New("ledger unavailable")
	// ErrInvalid: the call makes no sense, whatever the ledger holds: no key, a
	// lease that is not positive, a count that goes back.
	ErrInvalid = errors.New("invalid call")
)

// TakenError says that the payment cannot be claimed or taken, and what it is.
type TakenError struct {
	// Payment is the row as it stands.
	Payment Payment
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("payment %s is %s", e.Payment.ID, e.Payment.State)
}

// Ledger remembers payments. Modules in the namespace paywall.ledgers implement
// it, and ledgertest.Run is their contract. What the methods may do to a row is
// in the rules of this package; stores use the functions Apply*.
//
// Every method is atomic: of any number of callers, in any number of processes
// that share the ledger, one wins. All may be called at once, also from within
// the loop over List. All who share a ledger go by one clock, and a lease has
// ended at the instant Lease itself. What goes in and what comes out is copied:
// neither side sees the other's later changes.
//
// A lease protects only as far as its holder obeys it: one that cannot renew
// stops before its lease ends, and sends no byte after.
//
// A context that is done when the call begins gives an error and has no effect.
// An error that is none of the above means that nothing is known about the
// call's effect, and the caller must treat the payment as the worse of the two
// possibilities.
type Ledger interface {
	// Claim takes the authorization p.Key for one request until the lease ends.
	// It succeeds when the ledger does not know the key or the row is free by
	// the rules (see Claimable); else *TakenError. The row starts anew from p.
	Claim(ctx context.Context, p Payment, lease time.Duration) (Claim, error)

	// Take takes over a row whose holder is gone or done, and moves it to state
	// to: Settled or a stale Delivering to Delivering (redelivery), Unknown or a
	// stale Settling to Settling (to ask again), Delivered to Delivered (after a
	// reorganisation). See Takeable. Else *TakenError, or ErrNotFound.
	Take(ctx context.Context, key Key, to State, lease time.Duration) (Claim, error)

	// Renew prolongs the lease to lease from now; it never shortens it. It
	// succeeds after the end of the lease too, if nobody took the row meanwhile.
	// Else ErrLost.
	Renew(ctx context.Context, c Claim, lease time.Duration) error

	// Move changes the state, by the rules and only for the holder; else
	// ErrLost, also when the row is forgotten. It returns the row as it is then.
	// When the new state has no holder, the lease ends, and the token is void.
	// Where the store is durable, a move to Settling is on disk, power loss
	// included, before Move returns. What comes after it follows in order and soon,
	// and is seen by all who share the ledger at once: after a crash a row may be
	// found in an earlier state than it had, from Settling on, where it is asked
	// about again, and never forgotten.
	Move(ctx context.Context, c Claim, ch Change) (Payment, error)

	// Get returns one row, or ErrNotFound. A store may forget a row that is
	// free, and others when Forgettable says so.
	Get(ctx context.Context, key Key) (Payment, error)

	// List returns the rows that the filter selects, oldest first by Created.
	// Rows that change while it runs appear as they were or as they are. The
	// sequence ends at the first error.
	List(ctx context.Context, f Filter) iter.Seq2[Payment, error]
}
