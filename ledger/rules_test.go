package ledger

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

const testLease = 30 * time.Second

var testTime = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// TestTableInPackageComment keeps the table that people read and the table that
// decides alike.
func TestTableInPackageComment(t *testing.T) {
	source, err := os.ReadFile("ledger.go")
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for line := range strings.Lines(string(source)) {
		if line, ok := strings.CutPrefix(line, "//\t"); ok {
			shown = append(shown, strings.TrimSpace(line))
		}
		if strings.HasPrefix(line, "package ") {
			break
		}
	}
	want := []string{formatLine("from", "to", "by", "if", "lease", "doubt")}
	for _, r := range rules {
		from, doubt := string(r.from), ""
		if r.from == nowhere {
			from = "-"
		}
		if r.doubt == setsDoubt {
			doubt = "set"
		}
		want = append(want, formatLine(from, string(r.to), string(r.by), r.need.words(), string(r.lease), doubt))
	}
	if got, want := strings.Join(shown, "\n"), strings.Join(want, "\n"); got != want {
		t.Errorf("the package comment shows\n%s\nand the rules are\n%s", got, want)
	}
}

func formatLine(from, to, by, need, lease, doubt string) string {
	return strings.TrimSpace(fmt.Sprintf("%-11s %-11s %-6s %-33s %-7s %s", from, to, by, need, lease, doubt))
}

func (n need) words() string {
	var words []string
	for _, w := range []struct {
		bit  need
		word string
	}{
		{leaseRuns, "lease runs"},
		{nobodyHolds, "nobody holds"},
		{noDoubt, "no doubt"},
		{noDoubtOrProven, "no doubt or proven"},
		{reorganised, "reorganised"},
	} {
		if n&w.bit != 0 {
			words = append(words, w.word)
		}
	}
	return strings.Join(words, ", ")
}

// kind is all that the rules look at in a row.
type kind struct {
	state State
	doubt bool
	lease string // "none", "runs" or "over"
}

func kindOf(p Payment) kind {
	k := kind{p.State, p.Doubt, "none"}
	if Held(p, testTime) {
		k.lease = "runs"
	} else if !p.Lease.IsZero() {
		k.lease = "over"
	}
	return k
}

func (k kind) row() Payment {
	if k.state == nowhere {
		return Payment{}
	}
	p := Payment{Key: "k", ID: ID("k"), State: k.state, Doubt: k.doubt}
	switch k.lease {
	case "runs":
		p.Lease = testTime.Add(testLease)
	case "over":
		p.Lease = testTime
	}
	return p
}

// expired is the row when its lease has run out.
func (k kind) expired() kind {
	if k.lease == "runs" {
		k.lease = "over"
	}
	return k
}

// step is one change of a row of one kind.
type step struct {
	from, to kind
	by       means
	change   Change
}

// steps returns every change that the rules allow from k.
func (k kind) steps() []step {
	var all []step
	add := func(by means, ch Change, p Payment, err error) {
		if err == nil {
			all = append(all, step{k, kindOf(p), by, ch})
		}
	}
	p, err := ApplyClaim(k.row(), Payment{Key: "k"}, testTime, testLease)
	add(byClaim, Change{}, p, err)
	if k.state == nowhere {
		return all
	}
	for _, to := range States() {
		p, err := ApplyTake(k.row(), to, testTime, testLease)
		add(byTake, Change{To: to}, p, err)
		for _, proven := range []bool{false, true} {
			for _, reorg := range []bool{false, true} {
				ch := Change{To: to, Proven: proven, Reorganised: reorg}
				p, err := ApplyMove(k.row(), ch, testTime)
				add(byMove, ch, p, err)
			}
		}
	}
	return all
}

// reach returns every kind that can come about from k, itself included, when
// leases may also run out.
func reach(k kind) map[kind]bool {
	seen := map[kind]bool{k: true}
	for todo := []kind{k}; len(todo) > 0; {
		k, todo = todo[0], todo[1:]
		next := []kind{k.expired()}
		for _, s := range k.steps() {
			next = append(next, s.to)
		}
		for _, n := range next {
			if !seen[n] {
				seen[n] = true
				todo = append(todo, n)
			}
		}
	}
	return seen
}

func TestEveryStateIsReached(t *testing.T) {
	reached := map[State]bool{}
	for k := range reach(kind{lease: "none"}) {
		reached[k.state] = true
	}
	for _, s := range States() {
		if !reached[s] {
			t.Errorf("no way leads to %s", s)
		}
	}
}

// TestNobodyIsStuck: when the holder is gone, somebody else can become the
// holder and bring the payment to its end.
func TestNobodyIsStuck(t *testing.T) {
	for k := range reach(kind{lease: "none"}) {
		if k.state == Delivered {
			continue
		}
		var open bool
		for _, s := range k.expired().steps() {
			open = open || s.by != byMove
		}
		if !open {
			t.Errorf("%+v: nobody can go on", k)
		}
		var end bool
		for r := range reach(k.expired()) {
			end = end || r.state == Delivered
		}
		if !end {
			t.Errorf("%+v: no way leads to delivered", k)
		}
	}
}

// TestInvariants looks at every change of every kind of row that can come
// about: there are few enough.
func TestInvariants(t *testing.T) {
	for k := range reach(kind{lease: "none"}) {
		for _, s := range k.steps() {
			free := Claimable(s.to.row(), testTime)
			for name, broken := range map[string]bool{
				"unknown is doubt":   s.to.state == Unknown && !s.to.doubt,
				"delivered is final": k.state == Delivered && s.to.state != Delivered,
				"news of what was delivered come from a reorganisation":    k.state == Delivered && s.by == byMove && !s.change.Reorganised,
				"a row that is held cannot be claimed or taken":            s.by != byMove && k.lease == "runs",
				"who claims or takes holds":                                s.by != byMove && s.to.lease != "runs",
				"only the holder moves":                                    s.by == byMove && k.lease == "none",
				"to begin something takes a running lease":                 s.by == byMove && (s.to.state == Settling || s.to.state == Delivering) && k.lease != "runs",
				"no move prolongs a lease":                                 s.by == byMove && s.to.lease != "none" && s.to.lease != k.lease,
				"free rows come from claimed and settling only":            s.by == byMove && free && k.state != Claimed && k.state != Settling,
				"out of doubt only by proof":                               s.by == byMove && free && k.doubt && !s.change.Proven,
				"only a free row loses doubt":                              k.doubt && !s.to.doubt && k.state != Refused,
				"who asks again doubts":                                    s.to.state == Settling && k.state != Claimed && !s.to.doubt,
				"paid rows stay paid but for a reorganisation":             paid(k.state) && !paid(s.to.state) && !s.change.Reorganised,
				"goods go out only for a settled payment":                  s.to.state == Delivering && k.state != Settled && k.state != Delivering,
				"settled is said by somebody who asked, or held it before": s.to.state == Settled && k.state != Settling && k.state != Settled && k.state != Delivering,
			} {
				if broken {
					t.Errorf("not %q: %+v", name, s)
				}
			}
		}
		if k.state.Open() && Claimable(k.expired().row(), testTime) {
			t.Errorf("%+v is claimable", k)
		}
	}
}

func paid(s State) bool { return s == Settled || s == Delivering || s == Delivered }
