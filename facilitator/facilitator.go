// Package facilitator is the contract between the gate and whoever verifies
// and settles payments: the Facilitator interface, its outcomes, and the
// failover between several of them.
package facilitator

import (
	"context"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Facilitator verifies payments and moves the money. Modules in the namespace
// paywall.facilitators implement it.
//
// All methods may be called at once from many goroutines. They honour ctx, and
// they never serve as a memory of payments: that is the ledger's work.
type Facilitator interface {
	// Supported asks what the facilitator can do. It may use the network.
	Supported(ctx context.Context) (x402.Supported, error)

	// Verify asks whether a payment would settle. The error, best an *Error, is
	// for "no answer about the payment": the facilitator was not reached, or
	// what it said cannot be understood. A clear no is a Verdict, not an error.
	Verify(ctx context.Context, r Request) (Verdict, error)

	// Settle moves the money. It has no error: what went wrong is an Outcome,
	// because the difference between "did not move" and "may have moved"
	// decides whether a payer is charged twice. Calling it again with the same
	// request must not move the money again.
	Settle(ctx context.Context, r Request) Settlement
}

// Request is a payment together with the requirement it has to meet, which is
// always ours and never the payer's copy.
type Request struct {
	Payment     *x402.Payment
	Requirement x402.Requirement
	// Resource is what is being bought. Version 1 of the protocol carries it
	// inside the requirement.
	Resource x402.Resource
	// Payer is who signed the payment, as far as we can tell ourselves; "" if we
	// cannot. An answer that names somebody else is an answer about something
	// else.
	Payer string
	// From is the client network that the payment came from; "" if it is not known.
	From string `json:"-"`
	// Since is when the gate claimed the payment; zero if it does not say. What a
	// chain has from before is no settlement of ours.
	Since time.Time `json:"-"`
	// Unproven says that the gate could not check the signature itself. What
	// becomes of such a request says nothing about the facilitator: whoever makes
	// one can make it slow.
	Unproven bool `json:"-"`
	// Transaction is what was about to be sent for this payment when an earlier call
	// ended, perhaps with its process; "" if nothing was, or nobody knows.
	Transaction string `json:"-"`
	// Announce, if there is one, is told of a transaction before it is sent, so that it
	// is known whatever happens then. If it fails, the transaction must not be sent. It
	// may be called again, for another transaction in the place of one that was not taken or
	// that waits for too long, also after Settle has returned.
	Announce func(transaction string) error `json:"-"`
}

// Verdict is a facilitator's answer to Verify.
type Verdict struct {
	Valid bool
	// Reason is a machine code for the payer, when not valid.
	Reason string
	// Payer is who pays, when the facilitator said so.
	Payer string
	// Detail is for the log only: it may carry text of the facilitator or of a
	// node.
	Detail string
}

// Outcome is what is known after Settle.
type Outcome int

// The outcomes of Settle. The zero value is Unknown: what nobody decided may
// have moved money.
const (
	// Unknown: the money may have moved. Never tell the payer to sign again.
	Unknown Outcome = iota
	// Settled: the money has moved.
	Settled
	// Refused: the facilitator said, completely and credibly, that this call
	// moved nothing. It proves nothing about an earlier call for the same
	// payment.
	Refused
	// Unsent: the facilitator was not asked (no connection, no credentials);
	// nothing has moved.
	Unsent
)

// String returns the outcome as logs and metrics spell it.
func (o Outcome) String() string {
	switch o {
	case Settled:
		return "settled"
	case Refused:
		return "refused"
	case Unsent:
		return "unsent"
	default:
		return "unknown"
	}
}

// Settlement is a facilitator's answer to Settle.
type Settlement struct {
	Outcome Outcome
	// Transaction is the id on the chain: set when known, and always when
	// Settled, with one exception: an "upto" payment charged with 0 needs none.
	Transaction string
	// Block is where the transaction is, when it was looked at; zero if nobody did.
	Block Block
	// Network is CAIP-2, the requirement's.
	Network string
	// Payer is who paid, when the facilitator said so.
	Payer string
	// Amount is what was charged in atomic units, when the facilitator said so.
	Amount string
	// Reason is a machine code for the payer, when not Settled.
	Reason string
	// Detail is for the log only.
	Detail string
	// Unreached says of Unsent that the facilitator was not there to be asked: no
	// connection, or it is left alone because it gave no answers. That is not the
	// payer's doing.
	Unreached bool
	// NotAsked says of Unsent that the request could not be written, see ErrNotAsked.
	NotAsked bool
	// RetryAfter is how long a payer should wait before the next try, when Unsent;
	// 0 if the facilitator does not know.
	RetryAfter time.Duration
	// Extra and Extensions are scheme data for the payer's receipt; may be nil.
	Extra      jsontext.Value
	Extensions jsontext.Value
}
