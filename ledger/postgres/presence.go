package postgres

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// A gateway that is killed leaves its claims behind, and their payers would wait until the
// leases end. Nobody can see from the database that it is gone: its sessions end too when
// the network fails, when somebody ends them, or when the database starts again, while it is
// still sending goods. What proves it is the kernel under which it ran: each gateway holds a
// lock on a file of its own, which ends with the process and not before. So whoever comes to
// the same folder on the same machine, as a rule the same gateway that starts again, sees
// that the former one is dead, and ends its leases.
//
// The lock on a copy of the file, of a volume that was moved or a disk that was cloned, says
// nothing of who holds the original. Hence the file says which it is: the kernel's boot ID,
// its device and inode. And it is believed on local filesystems alone, where nobody else than
// this kernel decides about locks. Where anything of that is not known, leases end by
// themselves, as those of a gateway on another machine do.

const (
	// lookForDeadEvery is how often a gateway looks for others in its folder that have died.
	lookForDeadEvery = 5 * time.Second
	// instanceBytes is how much of a token names the gateway that has it; the rest is random.
	instanceBytes = 8
	// strangeFor is how old a presence file must be that does not prove its gateway dead, to be
	// removed.
	strangeFor = 24 * time.Hour
)

// newInstance names a ledger among all that ever were, or is "" if nothing random is to be had.
func newInstance(random io.Reader) string {
	t, err := ledger.NewToken(random)
	if err != nil {
		return "" // nor can there be claims
	}
	return string(t)[:2*instanceBytes]
}

// newToken is random, but for the name of this ledger at its beginning: it is in the
// database with each claim, and so it can be seen whose the claims are.
func (l *Ledger) newToken() (ledger.Token, error) {
	t, err := ledger.NewToken(l.random)
	if err != nil {
		return "", err
	}
	return ledger.Token(l.instance) + t[len(l.instance):], nil
}

// announce shows that this gateway lives. Without, its claims wait for their leases once it
// is dead.
func (l *Ledger) announce() {
	if l.presence == "" || l.instance == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.announced {
		return
	}
	l.announced = true
	err := os.MkdirAll(l.presence, 0o700)
	if err == nil {
		l.held, err = holdFile(l.presenceFile(l.instance))
	}
	if err != nil {
		l.logger.Info("this gateway cannot show others that it lives, so when it is killed, its payers wait until its leases end",
			zap.String("folder", l.presence), zap.Error(err))
	}
}

// leave takes back what announce has shown, unless claims of this process are out: it may
// still act on them.
func (l *Ledger) leave() {
	held := l.live() // before the lock
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil || held {
		return // the lock ends with the process
	}
	_ = os.Remove(l.presenceFile(l.instance))
	l.held.letGo()
	l.held = nil
}

// presenceFile is the file of a gateway that has this ledger.
func (l *Ledger) presenceFile(instance string) string {
	return filepath.Join(l.presence, l.channel()+"-"+instance)
}

// endDead ends the leases of gateways in our folder that are dead.
func (l *Ledger) endDead(ctx context.Context, db interface {
	Begin(ctx context.Context) (pgx.Tx, error)
},
) {
	if l.presence == "" {
		return
	}
	files, err := filepath.Glob(l.presenceFile("*"))
	if err != nil {
		return
	}
	for _, name := range files {
		instance := strings.TrimPrefix(filepath.Base(name), l.channel()+"-")
		if b, err := hex.DecodeString(instance); err != nil || len(b) != instanceBytes || instance == l.instance {
			continue
		}
		dead, err := takeDead(name)
		if err != nil || dead == nil {
			continue // it lives, or nobody knows
		}
		if err := l.endLeases(ctx, db, instance); err != nil {
			l.logger.Warn("ending the claims of a gateway that was killed", zap.String("error", plain(err)))
		} else {
			_ = os.Remove(name) // while it is ours
		}
		dead.letGo()
	}
}

// endLeases ends all leases of a gateway.
func (l *Ledger) endLeases(ctx context.Context, db interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}, instance string,
) error {
	var now *time.Time
	if l.now != nil {
		t := storableTime(l.now())
		now = &t
	}
	const rest = 32 - 2*instanceBytes
	from, to := instance+strings.Repeat("0", rest), instance+strings.Repeat("f", rest)
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		// Rows whose goods have not arrived, of which there are few. One that a statement of the
		// dead gateway is still changing is waited for, and is then as that has left it.
		tag, err := tx.Exec(ctx, "UPDATE paywall_payments p SET lease = c.now FROM "+clock+
			" WHERE p.stage = 0 AND p.lease > c.now AND p.token >= $2 AND p.token <= $3", now, id{&from}, id{&to})
		if err != nil {
			return fmt.Errorf("ending leases: %w", err)
		}
		if n := tag.RowsAffected(); n > 0 {
			l.logger.Info("a gateway of this folder was killed, and its claims are free", zap.Int64("claims", n))
		}
		return nil
	})
}

// lookForDead looks again and again for gateways of this folder that have died, until the
// ledger is closed.
func (l *Ledger) lookForDead() {
	timer := time.NewTicker(lookForDeadEvery)
	defer timer.Stop()
	for {
		select {
		case <-l.quit:
			return
		case <-timer.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
		l.endDead(ctx, l.pool)
		cancel()
	}
}
