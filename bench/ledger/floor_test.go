//go:build unix

package ledger

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// group is a group commit and nothing else: what comes while commit is busy goes
// with the next one.
type group[T any] struct {
	commit func([]T) error

	mu      sync.Mutex
	waiting []T
	next    *turn
	running bool
}

type turn struct {
	done chan struct{}
	err  error
}

func (g *group[T]) add(item T) error {
	g.mu.Lock()
	if g.next == nil {
		g.next = &turn{done: make(chan struct{})}
	}
	mine := g.next
	g.waiting = append(g.waiting, item)
	if g.running {
		g.mu.Unlock()
		<-mine.done
		return mine.err
	}
	g.running = true
	g.mu.Unlock()
	go g.run()
	<-mine.done
	return mine.err
}

func (g *group[T]) run() {
	for {
		g.mu.Lock()
		items, t := g.waiting, g.next
		g.waiting, g.next = nil, nil
		g.running = t != nil
		g.mu.Unlock()
		if t == nil {
			return
		}
		t.err = g.commit(items)
		close(t.done)
	}
}

// bareAppend is one record of the usual size in a file that was written before,
// and one sync for all that wait: the least that a durable sale costs.
func bareAppend(b *testing.B) seller {
	f, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	const size = 64 << 20
	if _, err := f.Write(make([]byte, size)); err != nil {
		b.Fatal(err)
	}
	var at int64
	var buf []byte
	g := &group[[]byte]{commit: func(items [][]byte) error {
		buf = buf[:0]
		for _, item := range items {
			buf = append(buf, item...)
		}
		if at+int64(len(buf)) > size {
			at = 0
		}
		if _, err := f.WriteAt(buf, at); err != nil {
			return err
		}
		at += int64(len(buf))
		return f.Sync()
	}}
	record := make([]byte, 1700)
	for i := range record {
		record[i] = byte(i)
	}
	return func(context.Context) error { return g.add(record) }
}

// sqliteAlone is the least that SQLite costs for it: settling is a transaction that many
// share, and what comes after goes with the next one; fewer columns, no index of states,
// nothing overwritten, and nobody looks whether the payment is known.
func sqliteAlone(b *testing.B) seller {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "p.db")+
		"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=wal_autocheckpoint(4000)&_txlock=immediate")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`CREATE TABLE payments (key TEXT PRIMARY KEY, state TEXT, payer TEXT, url BLOB,
		row BLOB, tx TEXT, status INT, runs INT, created INT, updated INT);
		CREATE INDEX c ON payments (created); CREATE INDEX p ON payments (payer, created)`); err != nil {
		b.Fatal(err)
	}
	insert, err := db.Prepare("INSERT INTO payments VALUES (?, ?, ?, ?, ?, '', 0, 0, ?, ?)")
	if err != nil {
		b.Fatal(err)
	}
	update, err := db.Prepare("UPDATE payments SET state = ?, tx = ?, status = ?, runs = ?, updated = ? WHERE key = ?")
	if err != nil {
		b.Fatal(err)
	}
	type step struct {
		p     ledger.Payment
		state ledger.State
		now   int64
	}
	var mu sync.Mutex
	var late []step
	g := &group[step]{commit: func(steps []step) error {
		mu.Lock()
		steps = append(late, steps...)
		late = nil
		mu.Unlock()
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		insert, update := tx.Stmt(insert), tx.Stmt(update) //nolint:sqlclosecheck // the transaction closes them
		for _, s := range steps {
			if s.state == ledger.Settling {
				_, err = insert.Exec(s.p.Key, s.state, s.p.Payer, []byte(s.p.URL), request, s.now, s.now)
			} else {
				_, err = update.Exec(s.state, changes[1].Transaction, 200, 1, s.now, s.p.Key)
			}
			if err != nil {
				return err
			}
		}
		return tx.Commit()
	}}
	return func(context.Context) error {
		p := sample()
		if err := g.add(step{p, ledger.Settling, time.Now().UnixNano()}); err != nil {
			return err
		}
		for _, s := range []ledger.State{ledger.Settled, ledger.Delivering, ledger.Delivered} {
			mu.Lock()
			late = append(late, step{p, s, time.Now().UnixNano()})
			mu.Unlock()
		}
		return nil
	}
}
