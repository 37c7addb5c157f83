package traffic

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
)

var noon = time.Date(2026, 11, 30, 12, 30, 0, 0, time.UTC)

// kept is a store that fails when told to.
type kept struct {
	rows  []Row
	fails error
}

func (k *kept) Add(_ context.Context, rows []Row) error {
	if k.fails != nil {
		return k.fails
	}
	k.rows = append(k.rows, rows...)
	return nil
}

func (k *kept) Open(context.Context) error { return k.fails }

func (k *kept) asked() (n int64) {
	for _, row := range k.rows {
		n += row.Asked
	}
	return n
}

var asked = Sums{Asked: 1, Worth: decimal.RequireFromString("0.01")}

func TestCounterCountsByHour(t *testing.T) {
	now := noon
	c := Counter{Now: func() time.Time { return now }}
	who := Client{"train", "GPTBot", "claimed"}
	c.Count("shop.example", "/a", who, "USD", asked)
	c.Count("shop.example", "/a", who, "USD", Sums{Challenged: 1})
	now = now.Add(time.Hour)
	c.Count("shop.example", "/a", who, "USD", asked)
	var store kept
	if err := c.Flush(t.Context(), &store); err != nil {
		t.Fatal(err)
	}
	if len(store.rows) != 2 || !store.rows[0].Hour.Equal(noon.Truncate(time.Hour)) || store.rows[0].Asked != 1 || store.rows[0].Challenged != 1 || store.rows[1].Asked != 1 {
		t.Errorf("%+v", store.rows)
	}
	if err := c.Flush(t.Context(), &store); err != nil || len(store.rows) != 2 {
		t.Errorf("what is kept is kept twice: %v %+v", err, store.rows)
	}
}

// Whatever strangers ask for, an hour has a bounded number of rows, and every request counts.
func TestCounterIsBounded(t *testing.T) {
	now := noon
	c := Counter{Now: func() time.Time { return now }}
	const many = 3 * maxKeys
	for i := range many {
		c.Count("shop.example", fmt.Sprint("/", i), Client{}, "USD", asked)
	}
	var store kept
	if err := c.Flush(t.Context(), &store); err != nil {
		t.Fatal(err)
	}
	if len(store.rows) > 2*maxKeys || store.asked() != many {
		t.Errorf("%d rows of %d requests", len(store.rows), store.asked())
	}
	for i := range many { // sites and names are bounded too
		c.Count(fmt.Sprint("site", i%10), "/", Client{Name: fmt.Sprint(i)}, "USD", asked)
	}
	if err := c.Flush(t.Context(), &store); err != nil || len(c.known) > 2*maxKeys+20 || store.asked() != 2*many {
		t.Errorf("%v: %d keys", err, len(c.known))
	}
	store.rows = nil
	// The bound is of the hour, and not of what was not flushed yet.
	c.Count("shop.example", "/new", Client{}, "USD", asked)
	if err := c.Flush(t.Context(), &store); err != nil || store.rows[len(store.rows)-1].Line != OtherLines {
		t.Errorf("%v %+v", err, store.rows[len(store.rows)-1])
	}
	// A store that is away for days costs a bounded memory.
	store.fails = errors.New("away")
	for range maxRows/maxKeys + 2 {
		now = now.Add(time.Hour)
		for i := range maxKeys {
			c.Count("shop.example", fmt.Sprint("/", i), Client{}, "USD", asked)
		}
		if err := c.Flush(t.Context(), &store); !errors.Is(err, store.fails) {
			t.Fatal(err)
		}
	}
	if len(c.rows) > maxRows {
		t.Errorf("%d rows wait", len(c.rows))
	}
}

func TestCounterLosesNothingToAStoreThatFails(t *testing.T) {
	c := Counter{Now: func() time.Time { return noon }}
	store := kept{fails: errors.New("away")}
	c.Count("shop.example", "/a", Client{}, "USD", asked)
	if err := c.Flush(t.Context(), &store); !errors.Is(err, store.fails) {
		t.Fatal(err)
	}
	c.Count("shop.example", "/a", Client{}, "USD", asked)
	store.fails = nil
	if err := c.Flush(t.Context(), &store); err != nil || len(store.rows) != 1 || store.rows[0].Asked != 2 || store.rows[0].Worth.String() != "0.02" {
		t.Errorf("%v %+v", err, store.rows)
	}
}

// rows are made so that each selection of hours has another sum: 1, 2, 4, ...
func someRows(first time.Time, n int, step time.Duration) (rows []Row) {
	for i := range n {
		rows = append(rows, Row{
			Key{Hour: first.Add(time.Duration(i) * step), Site: "s", Line: "/'é\x01*", Client: Client{"train", "Bot", "claimed"}, Unit: "USD"},
			Sums{Asked: 1 << i, Worth: decimal.New(1<<i, -9), Earned: decimal.New(1, 20)},
		})
	}
	return rows
}

func sumOf(t *testing.T, r Reader, q Query) (n int64, worth decimal.Decimal) {
	t.Helper()
	for row, err := range r.Rows(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		n += row.Asked
		worth = worth.Add(row.Worth)
	}
	return n, worth
}

// testStore is what both stores do.
func testStore(t *testing.T, store Store, reader Reader) {
	today := time.Now().UTC().Truncate(24 * time.Hour)
	first := today.Add(-3*24*time.Hour + 18*time.Hour)
	const step = 5 * time.Hour
	rows := someRows(first, 12, step)
	for range 2 { // the second adds
		if err := store.Add(t.Context(), rows); err != nil {
			t.Fatal(err)
		}
	}
	bound := []time.Time{{}}
	for at := today.Add(-3 * 24 * time.Hour); !at.After(today.Add(24 * time.Hour)); at = at.Add(6*time.Hour + 20*time.Minute) {
		bound = append(bound, at, at.Truncate(24*time.Hour), at.Truncate(time.Hour))
	}
	for _, since := range bound {
		for _, until := range bound {
			var want int64
			for _, row := range rows {
				cut := until.Truncate(time.Hour)
				if !cut.Equal(until) {
					cut = cut.Add(time.Hour)
				}
				if !row.Hour.Before(since.Truncate(time.Hour)) && (until.IsZero() || row.Hour.Before(cut)) {
					want += 2 * row.Asked
				}
			}
			if !until.IsZero() && until.Before(since) {
				continue
			}
			if got, worth := sumOf(t, reader, Query{since, until}); got != want || !worth.Equal(decimal.New(want, -9)) {
				t.Errorf("from %s to %s: %d, want %d; worth %s", since, until, got, want, worth)
			}
		}
	}
	// Hours that are long gone are found by the day.
	old := someRows(today.Add(-100*24*time.Hour+5*time.Hour), 3, time.Hour)
	if err := store.Add(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if err := store.Add(t.Context(), []Row{{Key: Key{Hour: today.Add(23 * time.Hour)}, Sums: Sums{Asked: 1}}}); err != nil {
		t.Fatal(err)
	}
	if got, _ := sumOf(t, reader, Query{Since: today.Add(-100*24*time.Hour + 9*time.Hour), Until: today.Add(-99*24*time.Hour - 6*time.Hour)}); got != 7 {
		t.Errorf("%d of a day long ago, want 7", got)
	}
	for row, err := range reader.Rows(t.Context(), Query{Since: first, Until: first.Add(time.Hour)}) {
		if err != nil || row.Key != (Key{first, "s", "/'é\x01*", Client{"train", "Bot", "claimed"}, "USD"}) || row.Earned.String() != "200000000000000000000" {
			t.Errorf("%v %+v", err, row)
		}
	}
}

func TestSQLiteKeepsCounts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a folder", "traffic?#%41.db")
	store := NewSQLite(file)
	t.Cleanup(func() { _ = store.Close() })
	if _, err := OpenSQLite(file); err == nil {
		t.Fatal("a file that is not there was opened")
	}
	if err := store.Add(t.Context(), someRows(time.Unix(0, 0), 1, 0)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	reader, err := OpenSQLite(file) // while the gateway runs
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Close() })
	if n, _ := sumOf(t, reader, Query{}); n != 1 {
		t.Error(n)
	}
	if err := reader.Add(t.Context(), someRows(noon, 1, 0)); err == nil {
		t.Error("a reader writes")
	}
	fresh := NewSQLite(filepath.Join(t.TempDir(), "t.db"))
	t.Cleanup(func() { _ = fresh.Close() })
	testStore(t, fresh, fresh)
}

// A file of another program is left as it is.
func TestSQLiteRefusesOtherFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "other.db")
	other := NewSQLite(file)
	db, err := other.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{{"user_version = 2", "knows 1"}, {"application_id = 7", "another program's"}} {
		pragma, want := c[0], c[1]
		if _, err := db.ExecContext(t.Context(), "PRAGMA "+pragma); err != nil {
			t.Fatal(err)
		}
		store := NewSQLite(file)
		if err := store.Add(t.Context(), someRows(noon, 1, 0)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", pragma, err)
		}
		_ = store.Close()
	}
	_ = other.Close()
}

func TestFileBesideIsAnother(t *testing.T) {
	for ledger, want := range map[string]string{
		"/a/payments.db": "/a/traffic.db", "/a/shop.db": "/a/shop-traffic.db", "shop": "shop-traffic", "/a.b/x": "/a.b/x-traffic", "payments": "traffic",
	} {
		if got := FileBeside(ledger); got != want {
			t.Errorf("%s: %s, want %s", ledger, got, want)
		}
	}
}

func BenchmarkCount(b *testing.B) {
	var c Counter
	lines := []string{"/a", "/b", "/c"}
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			c.Count("shop.example", lines[i%3], Client{"train", "GPTBot", "claimed"}, "USD", asked)
		}
	})
}

// BenchmarkYear: a report over a year of a busy site.
func BenchmarkYear(b *testing.B) {
	store := NewSQLite(filepath.Join(b.TempDir(), "t.db"))
	defer store.Close() //nolint:errcheck // the folder goes
	for d := range 365 {
		var rows []Row
		for i := range 300 {
			rows = append(rows, Row{Key{noon.Add(-time.Duration(d) * day), "s", fmt.Sprint("/", i%30), Client{"train", fmt.Sprint("bot", i/30), "claimed"}, "USD"}, asked})
		}
		if err := store.Add(b.Context(), rows); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		n := 0
		for _, err := range store.Rows(b.Context(), Query{}) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 365*300 {
			b.Fatal(n)
		}
	}
}
