package paywall

import "time"

// LookAtBlocks makes it time for the next look at all blocks that are watched.
func LookAtBlocks() {
	watches.Range(func(_, v any) bool {
		w := v.(*blockWatch)
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, b := range w.blocks {
			b.next = time.Time{}
		}
		return true
	})
}
