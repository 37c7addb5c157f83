package traffic

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// Query selects rows.
type Query struct {
	// Since and Until are cut to whole hours; the zero time is no bound.
	Since, Until time.Time
}

// Reader reads what stores keep.
type Reader interface {
	// Rows yields what is kept, by the hour or, where whole days are asked for, by the
	// day: the Hour of such a row is its first.
	Rows(ctx context.Context, q Query) iter.Seq2[Row, error]
	Close() error
}

// keepHours is how long hours are kept apart; days are kept for ever.
const keepHours = 40 * 24 * time.Hour

const day = 24 * time.Hour

// tables are those of hours and of days, and what a row of them counts together.
var tables = []struct {
	name   string
	length time.Duration
}{{"hours", time.Hour}, {"days", day}}

// span is a part of the time that is asked for.
type span struct {
	table        string
	since, until time.Time // zero: no bound
}

// spans divides a query into whole days, which have a table of their own, and the hours before
// and after them, as long as hours are kept.
func spans(q Query, now time.Time) []span {
	since, until := q.Since.UTC().Truncate(time.Hour), q.Until.UTC()
	if cut := until.Truncate(time.Hour); !until.IsZero() && !cut.Equal(until) {
		until = cut.Add(time.Hour)
	}
	oldest := now.UTC().Add(-keepHours).Truncate(day).Add(day)
	first, last := since, until
	if cut := since.Truncate(day); !since.IsZero() && !cut.Equal(since) {
		if first = cut.Add(day); since.Before(oldest) {
			since, first = cut, cut
		}
	}
	if cut := until.Truncate(day); !until.IsZero() && !cut.Equal(until) {
		if last = cut; until.Before(oldest) {
			until, last = cut.Add(day), cut.Add(day)
		}
	}
	if !last.IsZero() && first.After(last) || !first.IsZero() && first.Equal(last) {
		return []span{{"hours", since, until}} // within one day, or over midnight
	}
	var parts []span
	if first.After(since) {
		parts = append(parts, span{"hours", since, first})
	}
	parts = append(parts, span{"days", first, last})
	if until.After(last) {
		parts = append(parts, span{"hours", last, until})
	}
	return parts
}

// cursor is what the rows of database/sql and of pgx have in common.
type cursor interface {
	Next() bool
	Scan(into ...any) error
	Err() error
}

// partByPart yields the rows of a query. open asks for those of one part, and says how they are
// closed.
func partByPart(q Query, open func(span) (cursor, func(), error)) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for _, part := range spans(q, time.Now()) {
			rows, end, err := open(part)
			if err != nil {
				yield(Row{}, err)
				return
			}
			going := pass(rows, yield)
			if end(); !going {
				return
			}
		}
	}
}

// pass yields what a cursor has, and reports whether more is wanted.
func pass(rows cursor, yield func(Row, error) bool) (going bool) {
	for rows.Next() {
		var row Row
		var hour instant
		if err := rows.Scan(&hour, &row.Site, &row.Line, &row.Kind, &row.Name, &row.Proof, &row.Unit,
			&row.Asked, &row.Observed, &row.Challenged, &row.Paid, &row.Delivered, &row.Worth, &row.Earned); err != nil {
			yield(Row{}, fmt.Errorf("reading the counts: %w", err))
			return false
		}
		row.Hour = hour.UTC()
		if !yield(row, nil) {
			return false
		}
	}
	if err := rows.Err(); err != nil {
		yield(Row{}, fmt.Errorf("reading the counts: %w", err))
		return false
	}
	return true
}

// instant is a time as the databases have it: PostgreSQL a timestamp, SQLite seconds.
type instant struct{ time.Time }

// Scan implements sql.Scanner.
func (i *instant) Scan(from any) error {
	switch t := from.(type) {
	case time.Time:
		i.Time = t
	case int64:
		i.Time = time.Unix(t, 0)
	default:
		return fmt.Errorf("%T is no time", from)
	}
	return nil
}
