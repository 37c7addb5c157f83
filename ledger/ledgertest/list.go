package ledgertest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// keys returns the keys of the rows that the filter selects, in their order.
func (s *suite) keys(f ledger.Filter) string {
	s.Helper()
	var keys []string
	for _, p := range s.list(f) {
		s.wantEqual("the listed row", p, s.get(p.Key))
		keys = append(keys, string(p.Key))
	}
	return strings.Join(keys, " ")
}

func testList(s *suite) {
	if got := s.keys(ledger.Filter{}); got != "" {
		s.Errorf("an empty ledger lists %s", got)
	}
	begin := s.Now()
	for i, state := range []ledger.State{
		ledger.Delivered, ledger.Settled, ledger.Unknown, ledger.Settling, ledger.Delivering, ledger.Claimed, ledger.Settled,
	} {
		p := s.payment(ledger.Key(fmt.Sprint("k", i)))
		if i%2 == 1 {
			p.Payer, p.Method, p.Host, p.URL = "0xodd", "POST", "odd.example", "/odd?"
		}
		c, err := s.Claim(s.Context(), p, lease)
		if err != nil {
			s.Fatal(err)
		}
		for _, to := range way(state) {
			s.move(c, ledger.Change{To: to})
		}
		s.advance(time.Second)
	}
	at := func(i int) time.Time { return begin.Add(time.Duration(i) * time.Second) }

	for _, c := range []struct {
		name   string
		filter ledger.Filter
		want   string
	}{
		{"all", ledger.Filter{}, "k0 k1 k2 k3 k4 k5 k6"},
		{"one state", ledger.Filter{States: []ledger.State{ledger.Settled}}, "k1 k6"},
		{"unfinished", ledger.Filter{States: []ledger.State{ledger.Unknown, ledger.Settling}}, "k2 k3"},
		{"finished too", ledger.Filter{States: []ledger.State{ledger.Unknown, ledger.Delivered}}, "k0 k2"},
		{"no such state", ledger.Filter{States: []ledger.State{"sold"}}, ""},
		{"payer", ledger.Filter{Payer: "0xodd"}, "k1 k3 k5"},
		{"payer and state", ledger.Filter{Payer: "0xpayer", States: []ledger.State{ledger.Settled}}, "k6"},
		{
			"what one payer is owed for one request",
			ledger.Filter{
				States: []ledger.State{ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Unknown},
				Payer:  "0xodd", Method: "POST", Host: "odd.example", URL: "/odd?",
			},
			"k1 k3",
		},
		{"method", ledger.Filter{Method: "GET"}, "k0 k2 k4 k6"},
		{"host", ledger.Filter{Host: "odd.example"}, "k1 k3 k5"},
		{"url", ledger.Filter{URL: "/articles/1?x=%2F"}, "k0 k2 k4 k6"},
		{"a url is not a pattern", ledger.Filter{URL: "/%"}, ""},
		{"nor a prefix", ledger.Filter{URL: "/odd"}, ""},
		{"since", ledger.Filter{Since: at(5)}, "k5 k6"},
		{"until", ledger.Filter{Until: at(2)}, "k0 k1"},
		{"since and until", ledger.Filter{Since: at(2), Until: at(4)}, "k2 k3"},
		{"limit", ledger.Filter{Limit: 3}, "k0 k1 k2"},
		{"limit counts what is selected", ledger.Filter{Limit: 2, Payer: "0xodd"}, "k1 k3"},
		{"limit of the unfinished", ledger.Filter{Limit: 1, States: []ledger.State{ledger.Settled}}, "k1"},
		{"more than there are", ledger.Filter{Limit: 100, Since: at(6)}, "k6"},
	} {
		if got := s.keys(c.filter); got != c.want {
			s.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}

	// A payment that is claimed anew is as old as its new claim.
	s.advance(time.Minute)
	s.claim("k5")
	if got, want := s.keys(ledger.Filter{}), "k0 k1 k2 k3 k4 k6 k5"; got != want {
		s.Errorf("after a new claim: %s, want %s", got, want)
	}
}

// testListBrief: many rows come without what is large of them.
func testListBrief(s *suite) {
	request, answer := bytes.Repeat([]byte("r"), 1000), bytes.Repeat([]byte("a"), 1000)
	for i, answer := range [][]byte{answer, answer[:ledger.BriefAnswer-1], nil} {
		c, err := s.Claim(s.Context(), s.payment(ledger.Key(fmt.Sprint("k", i))), lease)
		if err != nil {
			s.Fatal(err)
		}
		s.advance(time.Second)
		s.move(c, ledger.Change{To: ledger.Settling, Request: request})
		s.move(c, ledger.Change{To: ledger.Settled})
		if i == 0 { // while it is held, too
			s.move(c, ledger.Change{To: ledger.Delivering, Answer: answer})
			continue
		}
		s.move(c, ledger.Change{To: ledger.Delivering})
		s.move(c, ledger.Change{To: ledger.Settled, Answer: answer})
	}
	for _, brief := range []bool{false, true} {
		i := 0
		for p, err := range s.List(s.Context(), ledger.Filter{Payer: "0xpayer", Brief: brief}) {
			if err != nil {
				s.Fatal(err)
			}
			wantRequest, wantAnswer := request, [][]byte{answer, answer[:ledger.BriefAnswer-1], nil}[i]
			if brief {
				wantRequest, wantAnswer = nil, wantAnswer[:min(len(wantAnswer), ledger.BriefAnswer)]
			}
			if !bytes.Equal(p.Request, wantRequest) || !bytes.Equal(p.Answer, wantAnswer) {
				s.Errorf("%s, brief %v: a request of %d bytes and an answer of %d", p.Key, brief, len(p.Request), len(p.Answer))
			}
			i++
		}
		if i != 3 {
			s.Errorf("brief %v: %d rows", brief, i)
		}
	}
	got, err := s.Get(s.Context(), "k0")
	if err != nil || !bytes.Equal(got.Answer, answer) || !bytes.Equal(got.Request, request) {
		s.Errorf("a brief List has changed the row: %v", err)
	}
}

// testListOrder has enough rows for any store's pages.
func testListOrder(s *suite) {
	const n = 1000
	for i := range n {
		c := s.claim(ledger.Key(fmt.Sprint("k", i*7919%n))) // the order of the keys says nothing
		if i%2 == 0 {
			s.move(c, ledger.Change{To: ledger.Settling})
		}
		s.advance(time.Millisecond)
	}
	for _, c := range []struct {
		filter ledger.Filter
		want   int
	}{{ledger.Filter{}, n}, {ledger.Filter{States: []ledger.State{ledger.Settling}}, n / 2}} {
		rows := s.list(c.filter)
		if len(rows) != c.want {
			s.Errorf("%d rows, want %d", len(rows), c.want)
		}
		if !slices.IsSortedFunc(rows, func(a, b ledger.Payment) int { return a.Created.Compare(b.Created) }) {
			s.Error("not in order of Created")
		}
	}
}

// testListStops: the loop may end when it likes, and the ledger goes on.
func testListStops(s *suite) {
	for i := range 5 {
		s.claim(ledger.Key(fmt.Sprint("k", i)))
	}
	for range 100 { // as often as a pool of connections may be large
		n := 0
		for range s.List(s.Context(), ledger.Filter{}) { //nolint:errcheck // the test is that it ends
			if n++; n == 2 {
				break
			}
		}
		if n != 2 {
			s.Fatalf("%d rows before the break", n)
		}
	}
	// A sequence can be looped over again.
	all := s.List(s.Context(), ledger.Filter{})
	for range 2 {
		n := 0
		for _, err := range all {
			s.wantError("List", err, nil)
			n++
		}
		if n != 5 {
			s.Errorf("%d rows", n)
		}
	}
	// A context that ends meanwhile ends it with an error, or it was done anyway.
	ctx, cancel := context.WithCancel(s.Context())
	n := 0
	for _, err := range s.List(ctx, ledger.Filter{}) {
		if err != nil {
			s.wantError("List", err, context.Canceled)
		}
		cancel()
		n++
	}
	cancel()
	if n > 6 {
		s.Errorf("%d steps", n)
	}
	s.claim("k5")
}

// testListAndCall: the loop over List may call the ledger, as the reconciler
// does.
func testListAndCall(s *suite) {
	for i := range 50 {
		s.bring(ledger.Key(fmt.Sprint("k", i)), ledger.Unknown)
		s.advance(time.Millisecond)
	}
	n := 0
	for p, err := range s.List(s.Context(), ledger.Filter{States: []ledger.State{ledger.Unknown}}) {
		if err != nil {
			s.Fatal(err)
		}
		n++
		c := s.take(p.Key, ledger.Settling)
		s.move(c, ledger.Change{To: ledger.Settled})
		s.move(c, ledger.Change{To: ledger.Settled})
		s.claim("during " + p.Key)
	}
	if n != 50 {
		s.Errorf("%d rows", n)
	}
	if got := len(s.list(ledger.Filter{States: []ledger.State{ledger.Settled}})); got != 50 {
		s.Errorf("%d rows are settled", got)
	}
}
