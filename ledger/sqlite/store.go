package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// store is the one connection that writes the file. It speaks to the driver itself:
// what package sql does for each statement would be a fifth of the work.
type store struct {
	db   *sql.DB
	conn *sql.Conn
	raw  [statements]rawStatement
	args []driver.NamedValue
}

// The statements of a transaction.
const (
	beginWrite = iota
	commitWrite
	rollbackWrite
	doInsert
	doUpdate
	doUpdatePayer
	doInsertKept
	doDeleteKept
	doDeleteLife
	doTry
	statements
)

var statementTexts = [statements]string{
	beginWrite: "BEGIN IMMEDIATE", commitWrite: "COMMIT", rollbackWrite: "ROLLBACK",
	doInsert: insertRow, doUpdate: updateRow, doUpdatePayer: updatePayer,
	doInsertKept: insertKept, doDeleteKept: deleteKept, doDeleteLife: deleteLife,
	doTry: "INSERT OR REPLACE INTO meta VALUES ('" + metaTried + "', randomblob(8))",
}

// openStore opens the database at path for writing.
func openStore(path string) (_ *store, err error) {
	s := &store{}
	s.db, err = sql.Open("sqlite", dataSource(path, "rw",
		"journal_mode(WAL)",
		// What is committed is on disk: a payment before its money is asked for.
		"synchronous(FULL)", "busy_timeout(10000)",
		// What was deleted, signatures and queries, is overwritten.
		"secure_delete(ON)",
		// 16 MB, for the pages of the indexes are written again with each checkpoint.
		"wal_autocheckpoint(4000)", "journal_size_limit(67108864)", "cache_size(-16000)",
	)+"&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	s.db.SetMaxOpenConns(1)
	return s, nil
}

// prepare prepares what the writer does all the time.
func (s *store) prepare(ctx context.Context) (err error) {
	if s.conn, err = s.db.Conn(ctx); err != nil {
		return err
	}
	return s.conn.Raw(func(c any) error {
		for i, text := range statementTexts {
			p, ok := c.(driver.ConnPrepareContext)
			if !ok {
				return fmt.Errorf("the driver's connection is a %T", c)
			}
			stmt, err := p.PrepareContext(ctx, text)
			if err != nil {
				return err
			}
			if s.raw[i], ok = stmt.(rawStatement); !ok {
				return errors.Join(fmt.Errorf("the driver's statement is a %T", stmt), stmt.Close())
			}
		}
		return nil
	})
}

// rawStatement is a statement of the driver.
type rawStatement interface {
	driver.Stmt
	driver.StmtExecContext
}

func (s *store) exec(ctx context.Context, statement int, args ...driver.Value) (int64, error) {
	s.args = values(s.args, args...)
	return s.do(ctx, statement)
}

// do executes a statement with the arguments in s.args, and says how many rows it
// changed.
func (s *store) do(ctx context.Context, statement int) (int64, error) {
	result, err := s.raw[statement].ExecContext(ctx, s.args)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (s *store) close() error {
	if s == nil {
		return nil
	}
	var errs []error
	if s.conn != nil {
		errs = append(errs, s.conn.Raw(func(any) error {
			var errs []error
			for _, stmt := range s.raw {
				if stmt != nil {
					errs = append(errs, stmt.Close())
				}
			}
			return errors.Join(errs...)
		}), s.conn.Close())
	}
	return errors.Join(append(errs, s.db.Close())...)
}

// write writes versions of rows in one transaction. sent says that COMMIT was sent: if
// there is an error then, nobody knows whether it was committed. try makes it write
// something even if there is nothing to write.
func (l *Ledger) write(versions []*version, try, hash bool) (sent bool, err error) {
	ctx := context.Background()
	if l.store == nil {
		// What state a connection is in after an error, nobody need know.
		if l.store, err = reopen(ctx, l.path); err != nil {
			return false, err
		}
	}
	err = l.store.conn.Raw(func(any) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		if err := l.fault("begin"); err != nil {
			return err
		}
		if _, err := l.store.exec(ctx, beginWrite); err != nil {
			return err
		}
		if try {
			if _, err := l.store.exec(ctx, doTry); err != nil {
				return err
			}
		}
		for _, anew := range []bool{false, true} { // what is new goes into the pages that others leave
			for _, v := range versions {
				if v.anew != anew {
					continue
				}
				if err := l.store.put(ctx, v, l.urlOf(&v.payment, hash)); err != nil {
					return err
				}
			}
		}
		if err := l.fault("write"); err != nil {
			return err
		}
		sent = true
		if _, err := l.store.exec(ctx, commitWrite); err != nil {
			return err
		}
		return l.fault("committed")
	})
	if err != nil {
		_ = l.store.close() // which rolls back
		l.store = nil
	}
	return sent, err
}

func reopen(ctx context.Context, path string) (*store, error) {
	s, err := openStore(path)
	if err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// urlOf is the URL as the file is to have it.
func (l *Ledger) urlOf(p *ledger.Payment, hash bool) string {
	if hash && !p.State.Open() {
		return l.file.hashQuery(p.URL)
	}
	return p.URL
}

// put writes a version of a row.
func (s *store) put(ctx context.Context, v *version, url string) error {
	p := &v.payment
	done := int64(0)
	var err error
	if !v.anew {
		s.args = updateValues(s.args, v)
		if done, err = s.do(ctx, doUpdate); err != nil {
			return err
		}
		if done > 0 && (v.payer || url != p.URL) {
			if _, err := s.exec(ctx, doUpdatePayer, p.Payer, []byte(url), v.id); err != nil {
				return err
			}
		}
	}
	if done == 0 { // it is new, or was removed; see prune
		if v.again {
			if _, err := s.exec(ctx, doDeleteLife, v.hash[:]); err != nil {
				return err
			}
		}
		s.args = insertValues(s.args, v, url)
		if _, err := s.do(ctx, doInsert); err != nil {
			return err
		}
	}
	switch {
	case !v.kept:
	case len(p.Request)+len(p.Answer) > 0:
		_, err = s.exec(ctx, doInsertKept, v.id, optional(p.Answer[:min(len(p.Answer), ledger.BriefAnswer)]), optional(p.Request), optional(p.Answer))
	default: // a row that is new may be there, if nobody knows whether it was committed
		_, err = s.exec(ctx, doDeleteKept, v.id)
	}
	return err
}
