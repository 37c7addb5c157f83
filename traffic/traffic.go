// Package traffic counts who asks for what has a price, by the hour, and what that would be
// worth or has earned. It knows no payer and no address: only words of the config, and names
// from the table of crawlers, so that its rows are bounded whatever strangers send.
package traffic

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/shopspring/decimal"
)

// Key is what requests have in common that are counted together.
type Key struct {
	// Hour is when it began, in UTC.
	Hour time.Time
	// Site and Line are named as in the config.
	Site, Line string
	Client
	// Unit is what Worth and Earned are in: USD, or the symbol of a token.
	Unit string
}

// Client is who asks, by what he says of himself and what proves it.
type Client struct {
	// Kind is one of package crawlers, or "" for who is not in its table.
	Kind string
	// Name is that of the table, or "".
	Name string
	// Proof says what is known of that: verified, claimed, browser, tool or unknown.
	Proof string
}

// Sums are what was counted.
type Sums struct {
	// Asked are all requests for what has a price.
	Asked int64
	// Observed are those of them that passed untouched, as the line is only observed.
	Observed int64
	// Challenged are those that were answered with the price.
	Challenged int64
	// Paid are those with which money moved, and Delivered those that got the goods.
	Paid, Delivered int64
	// Worth is what all that was asked for costs, and Earned what was paid, in units.
	Worth, Earned decimal.Decimal
}

// Add adds other sums.
func (s *Sums) Add(o Sums) {
	s.Asked += o.Asked
	s.Observed += o.Observed
	s.Challenged += o.Challenged
	s.Paid += o.Paid
	s.Delivered += o.Delivered
	s.Worth = s.Worth.Add(o.Worth)
	s.Earned = s.Earned.Add(o.Earned)
}

// Row is one line of the book.
type Row struct {
	Key
	Sums
}

// Store keeps the counts.
type Store interface {
	// Add adds rows to what is kept; all of them or none.
	Add(ctx context.Context, rows []Row) error
	// Open opens it. What goes wrong then would go wrong with the first rows.
	Open(ctx context.Context) error
}

// errClosed is the error of a store after Close: a later config has another one.
var errClosed = errors.New("the store of counts is closed")

// Nowhere keeps nothing.
type Nowhere struct{}

// Add implements Store.
func (Nowhere) Add(context.Context, []Row) error { return nil }

// Open implements Store.
func (Nowhere) Open(context.Context) error { return nil }

const (
	// maxKeys is how many rows of an hour are told apart. What comes then is counted
	// under OtherLines, and, after as many more, under no client.
	maxKeys = 5000
	// OtherLines stands for the lines that are not told apart.
	OtherLines = "(other lines)"
	// atOnce is how many rows are added in one call.
	atOnce = 1000
	// maxRows is how many wait for a store that is away. More are lost.
	maxRows = 10 * maxKeys
)

// Counter counts in memory until somebody flushes it into a store.
type Counter struct {
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	mu    sync.Mutex
	hour  time.Time
	known map[Key]bool // of this hour
	rows  map[Key]*Sums
}

// Count adds to the sums of a key, in the hour that it is.
func (c *Counter) Count(site, line string, who Client, unit string, s Sums) {
	now := time.Now
	if c.Now != nil {
		now = c.Now
	}
	key := Key{Hour: now().UTC().Truncate(time.Hour), Site: site, Line: line, Client: who, Unit: unit}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || !c.hour.Equal(key.Hour) {
		c.hour, c.known = key.Hour, map[Key]bool{}
	}
	if !c.known[key] && len(c.known) >= maxKeys {
		key.Line = OtherLines
	}
	if !c.known[key] && len(c.known) >= 2*maxKeys {
		key.Client = Client{} // of many sites and names
	}
	c.known[key] = true
	c.add(key, s)
}

func (c *Counter) add(key Key, s Sums) {
	if c.rows == nil {
		c.rows = map[Key]*Sums{}
	}
	sums := c.rows[key]
	if sums == nil {
		if len(c.rows) >= maxRows {
			return
		}
		sums = new(Sums)
		c.rows[key] = sums
	}
	sums.Add(s)
}

// Flush moves what was counted into a store. What the store does not take stays here.
func (c *Counter) Flush(ctx context.Context, to Store) error {
	c.mu.Lock()
	taken := c.rows
	c.rows = nil
	c.mu.Unlock()
	if len(taken) == 0 {
		return nil
	}
	rows := make([]Row, 0, len(taken))
	for key, sums := range taken {
		rows = append(rows, Row{key, *sums})
	}
	slices.SortFunc(rows, func(a, b Row) int { return compare(a.Key, b.Key) }) // gateways lock rows in one order
	var err error
	for part := range slices.Chunk(rows, atOnce) {
		if err = to.Add(ctx, part); err != nil {
			break
		}
		rows = rows[len(part):]
	}
	if err == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, row := range rows {
		c.add(row.Key, row.Sums)
	}
	return err
}

func compare(a, b Key) int {
	return cmp.Or(a.Hour.Compare(b.Hour), cmp.Compare(a.Site, b.Site), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Kind, b.Kind),
		cmp.Compare(a.Name, b.Name), cmp.Compare(a.Proof, b.Proof), cmp.Compare(a.Unit, b.Unit))
}

// FlushEvery is how often a gateway moves its counts into its store: as much is lost when it
// is killed.
const FlushEvery = 20 * time.Second
