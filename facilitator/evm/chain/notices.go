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

// Notices logs what an operator has to put right, and each of it once in a while only.
type Notices struct {
	Logger *zap.Logger // of what is to be logged each time
	now    func() time.Time
	told   *told
	about  string // is part of what was told
}

// told is what was logged lately.
type told struct {
	mu   sync.Mutex
	when map[string]time.Time
}

func newNotices(logger *zap.Logger, now func() time.Time) *Notices {
	return &Notices{Logger: logger, now: now, told: &told{when: make(map[string]time.Time)}}
}

// Of returns notices about one account: the log names it, and what was told of another is
// told of it, too.
func (n *Notices) Of(account common.Address) *Notices {
	address := account.Hex()
	return &Notices{n.Logger.With(zap.String("account", address)), n.now, n.told, address}
}

// Error logs an error, unless it did so less than a minute ago. The message is a constant.
func (n *Notices) Error(message string, fields ...zap.Field) {
	if n.Due(message, noticeEvery) {
		n.Logger.Error(message, fields...)
	}
}

// Warn logs a warning, unless it did so less than a minute ago. The message is a constant.
func (n *Notices) Warn(message string, fields ...zap.Field) {
	if n.Due(message, noticeEvery) {
		n.Logger.Warn(message, fields...)
	}
}

// Hourly logs by one of the methods of Logger, unless it did so less than an hour ago.
func (n *Notices) Hourly(log func(string, ...zap.Field), message string, fields ...zap.Field) {
	if n.Due(message, hourly) {
		log(message, fields...)
	}
}

// Due reports whether a message was not due for so long, and makes a note of it if it is now.
// The caller logs it then. Messages are constants,
// and so are accounts, so they are few.
func (n *Notices) Due(message string, every time.Duration) bool {
	n.told.mu.Lock()
	defer n.told.mu.Unlock()
	now, message := n.now(), n.about+message
	if at, ok := n.told.when[message]; ok && now.Sub(at) < every && !now.Before(at) {
		return false
	}
	n.told.when[message] = now
	return true
}
