//go:build race

package eip712

// With the race detector on, sync.Pool forgets at random, to find misuse.
func init() { poolForgets = true }
