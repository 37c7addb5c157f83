package facilitator

import (
	"context"
	"time"
)

// Evidence is what a chain says about one authorization.
type Evidence int

// What a chain can say. The zero value is Open: no evidence.
const (
	// Open: it cannot be told, or not yet.
	Open Evidence = iota
	// Moved: this very authorization has moved the money to the payee.
	Moved
	// Void: it has not, and never can any more.
	Void
)

// Proof is evidence with its source.
type Proof struct {
	Evidence Evidence
	// Transaction is where the money moved, and Block where that is; only with Moved.
	Transaction string
	Block       Block
	// Reason is a machine code, with Void.
	Reason string
}

// Witness is implemented by facilitators that can look at a chain themselves,
// so that a payment in doubt can be decided without anybody's word.
type Witness interface {
	// Sees says whether it can look at a network (CAIP-2).
	Sees(network string) bool

	// Witness looks for what became of the authorization of r, in blocks from
	// since on: nothing before our own claim proves anything, because every used
	// authorization is public. Moved needs the authorization's own event of the
	// asset and the transfer of the right amount to the payee in one
	// transaction. Void needs blocks that no reorganisation takes back. An error
	// means that the chain could not be asked.
	Witness(ctx context.Context, r Request, since time.Time) (Proof, error)
}
