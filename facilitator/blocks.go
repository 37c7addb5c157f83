package facilitator

import "context"

// Block names a block of a chain. The zero value is none.
type Block struct {
	Number uint64
	Hash   string
}

// Blocks is implemented by facilitators that can look whether a chain still has a
// block: until it is final, a reorganisation can take it back, and all payments in
// it.
type Blocks interface {
	// Sees says whether it can look at a network (CAIP-2).
	Sees(network string) bool

	// HasBlock says whether the block is in the chain of a network. That it is not
	// is the word of one node, and no proof. An error means that it could not be
	// told.
	HasBlock(ctx context.Context, network string, b Block) (bool, error)
}
