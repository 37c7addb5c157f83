package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// TestQueryPlans: no query of List reads the whole table when an index knows
// better, and none sorts.
func TestQueryPlans(t *testing.T) {
	l := open(t, filepath.Join(memoryDir(t), "payments.db"), Options{})
	since := time.Now()
	const byID = "payments USING INTEGER PRIMARY KEY (rowid>"
	for _, c := range []struct {
		name   string
		filter ledger.Filter
		want   []string
	}{
		{"all", ledger.Filter{}, []string{byID}},
		{"since", ledger.Filter{Since: since}, []string{byID}},
		{"until", ledger.Filter{Until: since}, []string{byID}},
		{"payer", ledger.Filter{Payer: "p"}, []string{byID}},
		{"payer since", ledger.Filter{Payer: "p", Since: since}, []string{byID}},
		{"what a payer is owed for a request", ledger.Filter{Payer: "p", Method: "GET", Host: "h", URL: "/?a", States: []ledger.State{ledger.Settled, ledger.Unknown}}, []string{"payments_payer (payer=? AND rowid>"}},
		{"payer and url", ledger.Filter{Payer: "p", Method: "GET", Host: "h", URL: "/?a"}, []string{byID}},
		{"payer and state", ledger.Filter{Payer: "p", States: []ledger.State{ledger.Settled}}, []string{"payments_payer (payer=? AND rowid>"}},
		{"payer and states", ledger.Filter{Payer: "p", States: []ledger.State{ledger.Settled, ledger.Delivered}}, []string{byID}},
		{"claims", ledger.Filter{States: []ledger.State{ledger.Claimed}}, nil},
		{"identifier", ledger.Filter{Identifier: "i"}, []string{"payments_identifier (identifier=? AND rowid>"}},
		{"identifier of a payer", ledger.Filter{Identifier: "i", Payer: "p"}, []string{"payments_identifier (identifier=? AND rowid>"}},
		{"one state", ledger.Filter{States: []ledger.State{ledger.Unknown}}, []string{"payments_state (state=? AND rowid>"}},
		{"states", ledger.Filter{States: []ledger.State{ledger.Unknown, ledger.Refused}}, []string{"payments_state (state=? AND rowid>", "payments_state (state=? AND rowid>"}},
		{"states since", ledger.Filter{States: []ledger.State{ledger.Unknown}, Since: since}, []string{"payments_state (state=? AND rowid>"}},
		{"delivered", ledger.Filter{States: []ledger.State{ledger.Delivered}}, []string{byID}},
		{"delivered and others", ledger.Filter{States: []ledger.State{ledger.Delivered, ledger.Settled}}, []string{byID}},
		{"url", ledger.Filter{URL: "/"}, []string{byID}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, brief := range []bool{false, true} {
				c.filter.Brief = brief
				query, args := l.file.selects(c.filter, 1, 2)
				if query == "" {
					if len(c.want) > 0 {
						t.Error("nothing is asked")
					}
					continue
				}
				for _, order := range []string{"", " DESC"} {
					plan := explain(t, l, query+order, args...)
					if n := strings.Count(plan, "SEARCH payments"); n != len(c.want) || strings.Contains(plan, "TEMP B-TREE") || strings.Contains(plan, "SCAN") {
						t.Errorf("%d searches: %s; want %s", n, plan, c.want)
					}
					for _, want := range c.want {
						if !strings.Contains(plan, want) {
							t.Errorf("%s; want %s", plan, want)
						}
						plan = strings.Replace(plan, want, "", 1)
					}
				}
			}
		})
	}
	for query, want := range map[string]string{
		selectRow + " WHERE payments.hash = ?": "sqlite_autoindex_payments_1 (hash=?)",
		selectHas:                              "COVERING INDEX sqlite_autoindex_payments_1 (hash=?)",
		selectRow + selectBegins:               "sqlite_autoindex_payments_1 (hash>? AND hash<?)",
		selectOpen:                             "payments_state (state=?)",
		selectRow + selectDue:                  "payments_kept (kept_until>? AND kept_until<?)",
		updateRow:                              "payments USING INTEGER PRIMARY KEY (rowid=?)",
		updateMore:                             "payments USING INTEGER PRIMARY KEY (rowid=?)",
		deleteKept:                             "kept USING PRIMARY KEY (id=?)",
		pruneFree:                              "payments_state (state=?)",
		pruneOld:                               "payments USING INTEGER PRIMARY KEY (rowid<?)",
	} {
		args := make([]any, strings.Count(query, "?"))
		if plan := explain(t, l, query, args...); !strings.Contains(plan, want) || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("%s\n\t%s; want %s", query, plan, want)
		}
	}
}

func explain(t *testing.T, l *Ledger, query string, args ...any) (plan string) {
	t.Helper()
	rows, err := reading(t, l).QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan += detail + "; "
	}
	return plan
}

// TestListMerges: what is in memory and what is in the file make one list, while rows
// go from one to the other.
func TestListMerges(t *testing.T) {
	l := open(t, filepath.Join(memoryDir(t), "payments.db"), Options{})
	const n = 1000
	for i := range n {
		bring(t, l, ledger.Key(fmt.Sprintf("k%03d", i)), ledger.States()[i%len(ledger.States())])
		if i == n/2 {
			flush(t, l)
		}
	}
	free := 0
	for i, f := range []ledger.Filter{{}, {Payer: "0xpayer"}, {States: []ledger.State{ledger.Delivered, ledger.Refused, ledger.Unknown}}, {Host: "shop.example"}} {
		seen := map[ledger.Key]bool{}
		var last time.Time
		for p, err := range l.List(t.Context(), f) {
			if err != nil {
				t.Fatal(err)
			}
			if p.Created.Before(last) || seen[p.Key] {
				t.Errorf("%s of %s after %s; seen: %v", p.Key, p.Created, last, seen[p.Key])
			}
			seen[p.Key], last = true, p.Created
			if len(seen)%100 == 0 { // all move while it runs, and some change
				flush(t, l)
				bring(t, l, ledger.Key(fmt.Sprintf("new %d %d", i, len(seen))), ledger.Delivered)
			}
		}
		if i == 0 {
			free = len(seen)
		}
		if want := n * 3 / 8; len(f.States) > 0 && len(seen) < want {
			t.Errorf("%d rows, want %d", len(seen), want)
		}
		if len(f.States) == 0 && len(seen) < n*7/8 {
			t.Errorf("%d rows of %d", len(seen), n)
		}
	}
	if free > n {
		t.Errorf("%d rows, and %d were claimed before", free, n)
	}
}

// TestListAfterChange: what the database has of a row is not listed when memory
// has a later version that the filter does not select.
func TestListAfterChange(t *testing.T) {
	l := open(t, filepath.Join(memoryDir(t), "payments.db"), Options{})
	c := bring(t, l, "k", ledger.Settling)
	flush(t, l)
	if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settled, Payer: "0xother"}); err != nil {
		t.Fatal(err)
	}
	for payer, want := range map[string]int{"0xpayer": 0, "0xother": 1} {
		n := 0
		for p, err := range l.List(t.Context(), ledger.Filter{Payer: payer}) {
			if n++; err != nil || p.State != ledger.Settled {
				t.Errorf("%s: %+v, %v", payer, p, err)
			}
		}
		if n != want {
			t.Errorf("%s has %d rows, want %d", payer, n, want)
		}
	}
}

// takeBack says of a delivered payment that a reorganisation took its money.
func takeBack(t *testing.T, l *Ledger, key ledger.Key) {
	t.Helper()
	c, err := l.Take(t.Context(), key, ledger.Delivered, testLease)
	if err == nil {
		_, err = l.Move(t.Context(), c, ledger.Change{To: ledger.Delivered, Reorganised: true, Reason: ledger.ReasonReverted})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestReorganisedWhileWritten: a delivered payment is on its way to the file when it
// turns out that its money is gone.
func TestReorganisedWhileWritten(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{})
	const n = 300
	for i := range n {
		bring(t, l, ledger.Key(fmt.Sprint(i)), ledger.Delivered)
	}
	for range 2 {
		for i := range n {
			takeBack(t, l, ledger.Key(fmt.Sprint(i)))
		}
	}
	for range 2 {
		for i := range n {
			if p, err := l.Get(t.Context(), ledger.Key(fmt.Sprint(i))); err != nil || p.State != ledger.Delivered || p.Reason != ledger.ReasonReverted {
				t.Fatalf("%s, %q, %v", p.State, p.Reason, err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, path, Options{})
	}
}

type lister interface {
	List(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error]
}

// TestHashQueries: what was asked for cannot be read from the database when it
// was delivered, but it is found.
func TestHashQueries(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	l := open(t, path, Options{HashQueries: true})
	const url = "/a?email=me@example.com"
	bring(t, l, "done", ledger.Delivered)
	bring(t, l, "owed", ledger.Settled)
	flush(t, l)
	find := func(l lister, f ledger.Filter) (found []string) {
		for p, err := range l.List(t.Context(), f) {
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, string(p.Key)+" "+p.URL)
		}
		return found
	}
	hashed := l.file.hashQuery(url)
	if strings.Contains(hashed, "example") || !strings.HasPrefix(hashed, "/a?sha256=") || l.file.hashQuery("/a") != "/a" || l.file.hashQuery("/a?") != "/a?" {
		t.Errorf("hashed: %s", hashed)
	}
	want := fmt.Sprint([]string{"done " + hashed, "owed " + url})
	for range 2 {
		if got := fmt.Sprint(find(l, ledger.Filter{URL: url})); got != want {
			t.Errorf("found %s, want %s", got, want)
		}
		if got := find(l, ledger.Filter{URL: "/a?email=you@example.com"}); len(got) > 0 {
			t.Errorf("another query finds %s", got)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, path, Options{HashQueries: true})
	}
	takeBack(t, l, "done") // writes it once more
	flush(t, l)
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if got := fmt.Sprint(find(r, ledger.Filter{URL: url})); got != want {
		t.Errorf("the reader finds %s, want %s", got, want)
	}
}

// TestPrune: finished payments go when they are old, and not before their Keep.
func TestPrune(t *testing.T) {
	now := time.Now()
	l := open(t, filepath.Join(memoryDir(t), "payments.db"), Options{Now: func() time.Time { return now }, KeepFinished: 48 * time.Hour})
	for _, s := range ledger.States() {
		bring(t, l, keyOf(s), s)
	}
	long := payment("long")
	long.Keep = now.Add(1000 * time.Hour)
	c, err := l.Claim(t.Context(), long, testLease)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range way(ledger.Delivered) {
		move(t, l, c, s)
	}
	prune := func() {
		t.Helper()
		flush(t, l)
		if err := l.prune(); err != nil {
			t.Fatal(err)
		}
	}
	prune()
	wantState(t, l, keyOf(ledger.Delivered), ledger.Delivered)
	now = now.Add(47 * time.Hour)
	prune()
	wantState(t, l, keyOf(ledger.Delivered), ledger.Delivered)
	now = now.Add(2 * time.Hour)
	l.SetOptions(Options{KeepFinished: -1})
	prune()
	wantState(t, l, keyOf(ledger.Delivered), ledger.Delivered)
	l.SetOptions(Options{KeepFinished: time.Hour})
	prune()
	for _, s := range ledger.States() {
		switch {
		case s.Open():
			wantState(t, l, keyOf(s), s)
		case s != ledger.Claimed:
			wantState(t, l, keyOf(s), "")
		}
	}
	wantState(t, l, "long", ledger.Delivered)
	wantUsed(t, l, "long")
}

// TestClockGoesBack: payments are listed in the order of their claims, and found by when
// they were claimed, though the clock was ahead once.
func TestClockGoesBack(t *testing.T) {
	path := filepath.Join(memoryDir(t), "payments.db")
	begun := time.Now()
	now := begun
	options := Options{Now: func() time.Time { return now }}
	l := open(t, path, options)
	for i, at := range []time.Duration{0, 48 * time.Hour, time.Hour, time.Hour, 2 * time.Hour} {
		now = begun.Add(at)
		bring(t, l, ledger.Key(fmt.Sprint("k", i)), ledger.Delivered)
		if i == 2 { // what it learns from the file is as good
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = open(t, path, options)
		}
	}
	flush(t, l)
	for _, c := range []struct {
		filter ledger.Filter
		want   string
	}{
		{ledger.Filter{}, "k0 k1 k2 k3 k4"},
		{ledger.Filter{Since: begun.Add(time.Hour)}, "k1 k2 k3 k4"},
		{ledger.Filter{Since: begun.Add(90 * time.Minute)}, "k1 k4"},
		{ledger.Filter{Until: begun.Add(2 * time.Hour)}, "k0 k2 k3"},
	} {
		var keys []string
		for p, err := range l.List(t.Context(), c.filter) {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, string(p.Key))
		}
		if got := strings.Join(keys, " "); got != c.want {
			t.Errorf("%+v: %s, want %s", c.filter, got, c.want)
		}
	}
}

// TestALongListHoldsNobodyUp: a payment is claimed, and sold, while a query of List is
// under way.
func TestALongListHoldsNobodyUp(t *testing.T) {
	l := open(t, filepath.Join(memoryDir(t), "payments.db"), Options{})
	bring(t, l, "before", ledger.Delivered)
	flush(t, l)
	err := l.lists.query(t.Context(), "SELECT 1 FROM payments", nil, func([]driver.Value) error {
		bring(t, l, "meanwhile", ledger.Delivered)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantUsed(t, l, "meanwhile")
}
