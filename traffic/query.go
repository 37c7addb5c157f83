package traffic

import (
	"context"
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
