package ledger

import (
	"context"
	"errors"
)

// ErrGenesis: the network is not the one of which the ledger has payments. It
// is another chain under the same name.
var ErrGenesis = errors.New("another chain under the same name")

// Chains is implemented by ledgers that remember which chain a network's name
// means. A development chain may have the name of the public one that it
// imitates; what was paid on one must not count on the other.
type Chains interface {
	// RememberGenesis records the hash of the first block of a network (CAIP-2), or
	// compares it with the one on record. If they differ, the error is ErrGenesis,
	// and the first one stays on record. It lasts as long as the ledger's payments.
	RememberGenesis(ctx context.Context, network, hash string) error
}
