package evm

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// noticeEvery is how often the log repeats what is wrong with a chain or an
// account: each payment meets it again, and one line is enough.
const noticeEvery = time.Minute

// notices logs what an operator has to put right.
type notices struct {
	logger *zap.Logger
	now    func() time.Time

	mu   sync.Mutex
	told map[string]time.Time
}

func (n *notices) error(message string, fields ...zap.Field) {
	if n.due(message) {
		n.logger.Error(message, fields...)
	}
}

func (n *notices) warn(message string, fields ...zap.Field) {
	if n.due(message) {
		n.logger.Warn(message, fields...)
	}
}

// due reports whether the message was not logged lately. Messages are constants,
// so they are few.
func (n *notices) due(message string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	if at, ok := n.told[message]; ok && now.Sub(at) < noticeEvery && !now.Before(at) {
		return false
	}
	if n.told == nil {
		n.told = make(map[string]time.Time)
	}
	n.told[message] = now
	return true
}
