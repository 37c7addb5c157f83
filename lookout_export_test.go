package paywall

import "github.com/caddy-paywall/caddy-paywall/internal/settlement"

// LookAtBlocks makes it time for the next look at all blocks that are watched.
func LookAtBlocks() {
	watches.Range(func(_, v any) bool {
		v.(*settlement.Blocks).ForTest().LookNow()
		return true
	})
}
