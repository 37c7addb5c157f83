package facilitator

import "context"

// Chains is implemented by facilitators that have nodes of chains, so that it can
// be seen whether a network is the one that it is taken for. A chain id is no
// proof: a development chain has the id of the chain that it imitates.
type Chains interface {
	// Seen are the networks (CAIP-2) that it has nodes of.
	Seen() []string

	// Genesis asks all nodes of a network for the hash of the chain's first block,
	// and returns what they say, each hash once. An error means that none of them
	// could be asked.
	Genesis(ctx context.Context, network string) (hashes []string, err error)
}
