package chain

import (
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"go.uber.org/zap"
)

// noticeEvery is how often the log repeats what is wrong with a chain or an
// account: each payment meets it again, and one line is enough.
const noticeEvery = time.Minute

// hourly is how often the log repeats what nobody has to be told more often.
const hourly = time.Hour

// notices logs what an operator has to put right.
type notices struct {
	Logger *zap.Logger
	now    func() time.Time
	told   *told
	about  string // is part of what was told
}

// told is what was logged lately.
type told struct {
	mu   sync.Mutex
	when map[string]time.Time
}

func newNotices(logger *zap.Logger, now func() time.Time) *notices {
	return &notices{Logger: logger, now: now, told: &told{when: make(map[string]time.Time)}}
}

// Of returns notices about one account: the log names it, and what was told of another is
// told of it, too.
func (n *notices) Of(account common.Address) *notices {
	address := account.Hex()
	return &notices{n.Logger.With(zap.String("account", address)), n.now, n.told, address}
}

func (n *notices) Error(message string, fields ...zap.Field) {
	if n.Due(message, noticeEvery) {
		n.Logger.Error(message, fields...)
	}
}

func (n *notices) Warn(message string, fields ...zap.Field) {
	if n.Due(message, noticeEvery) {
		n.Logger.Warn(message, fields...)
	}
}

// Hourly logs what nobody has to be told more often.
func (n *notices) Hourly(log func(string, ...zap.Field), message string, fields ...zap.Field) {
	if n.Due(message, hourly) {
		log(message, fields...)
	}
}

// Due reports whether the message was not logged lately. Messages are constants,
// and so are accounts, so they are few.
func (n *notices) Due(message string, every time.Duration) bool {
	n.told.mu.Lock()
	defer n.told.mu.Unlock()
	now, message := n.now(), n.about+message
	if at, ok := n.told.when[message]; ok && now.Sub(at) < every && !now.Before(at) {
		return false
	}
	n.told.when[message] = now
	return true
}
