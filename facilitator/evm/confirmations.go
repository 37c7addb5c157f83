package evm

import (
	"fmt"
	"time"
)

const (
	defaultConfirmations = 1
	// maxConfirmations bounds what can be configured on chains of which it is not known
	// how often they have a block.
	maxConfirmations = 100
	// settlementWait is how long the gate waits for a settlement. One that takes longer
	// counts as in doubt, and its payer gets nothing although the money has moved.
	settlementWait = 2 * time.Minute
)

// blockTimes is how often chains have a block, by their ids, where that is seldom
// enough to matter.
var blockTimes = map[uint64]time.Duration{
	1:        12 * time.Second, // Ethereum
	11155111: 12 * time.Second, // Sepolia
	3338:     6 * time.Second,  // peaq
	100:      5 * time.Second,  // Gnosis
	10:       2 * time.Second,  // OP Mainnet
	11155420: 2 * time.Second,
	8453:     2 * time.Second, // Base
	84532:    2 * time.Second,
	480:      2 * time.Second, // World Chain
	4801:     2 * time.Second,
	137:      2 * time.Second, // Polygon
	80002:    2 * time.Second,
	59144:    2 * time.Second, // Linea
	50:       2 * time.Second, // XDC
	51:       2 * time.Second,
}

// mostConfirmations is how many blocks can hold a payment while its settlement is
// waited for. It takes one block time more than there are confirmations until the
// last of these blocks is there: the transaction may have just missed one.
func mostConfirmations(id uint64) int {
	every, known := blockTimes[id]
	if !known {
		return maxConfirmations
	}
	return min(int(settlementWait/every)-1, maxConfirmations)
}

// checkConfirmations finds a number of confirmations that could never be reached in
// time; 0 is the default.
func checkConfirmations(n int, id uint64) error {
	switch most := mostConfirmations(id); {
	case n < 0 || n > maxConfirmations:
		return fmt.Errorf("confirmations %d: must be 1 to %d", n, most)
	case n > most:
		return fmt.Errorf("confirmations %d: with a block every %s, at most %d are reached within the %s that a settlement is waited for, and nobody would get what he has paid for", n, blockTimes[id], most, settlementWait)
	}
	return nil
}
