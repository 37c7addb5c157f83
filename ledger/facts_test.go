package ledger

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"
)

func TestID(t *testing.T) {
	// printf k | sha256sum | cut -c1-32
	if got, want := ID("k"), "8254c329a92850f6d539dd376f4816ee"; got != want {
		t.Errorf("ID = %s, want %s", got, want)
	}
}

func TestNewToken(t *testing.T) {
	token, err := NewToken(bytes.NewReader(bytes.Repeat([]byte{0xa5}, 16)))
	if err != nil || token != Token(strings.Repeat("a5", 16)) {
		t.Errorf("NewToken = %q, %v", token, err)
	}
	if _, err := NewToken(iotest.ErrReader(errors.New("no entropy"))); !errors.Is(err, ErrUnavailable) {
		t.Errorf("without randomness: %v", err)
	}
	if _, err := NewToken(strings.NewReader("too short")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("with too little randomness: %v", err)
	}
}

func TestClaimStartsAnew(t *testing.T) {
	old := Payment{
		Key: "k", State: Refused, Doubt: true, Transaction: "0x1", Reason: "old", Status: 502, Runs: 3, Ended: 2,
		Created: testTime.Add(-time.Hour), Payer: "old",
	}
	p, err := ApplyClaim(old, Payment{
		Key: "k", ID: "forged", State: Delivered, Doubt: true, Transaction: "0x2", Reason: "new", Status: 200, Runs: 9, Ended: 9,
		Created: testTime.Add(time.Hour), Updated: testTime.Add(time.Hour), Lease: testTime.Add(time.Hour),
		Payer: "new", Facilitator: "own", Request: []byte("{}"),
		ValidBefore: testTime.Add(time.Minute), Keep: testTime.Add(time.Second),
	}, testTime, testLease)
	want := Payment{
		Key: "k", ID: ID("k"), State: Claimed,
		Created: testTime, Updated: testTime, Lease: testTime.Add(testLease),
		Payer: "new", Facilitator: "own", Request: []byte("{}"),
		ValidBefore: testTime.Add(time.Minute), Keep: testTime.Add(time.Minute),
	}
	if err != nil || !reflect.DeepEqual(p, want) {
		t.Errorf("ApplyClaim = %+v, %v\nwant %+v", p, err, want)
	}
}

func TestFacts(t *testing.T) {
	row := kind{Settling, false, "runs"}.row()
	row.Payer, row.Amount, row.Facilitator, row.Runs, row.Request = "0xpayer", "100", "cdp", 1, []byte("{}")

	settled, err := ApplyMove(row, Change{To: Settled, Transaction: "0x1", Amount: "70", Status: 200, Runs: 2, Ended: 1, Body: "digest"}, testTime)
	want := row
	want.State, want.Updated = Settled, testTime
	want.Transaction, want.Amount, want.Status, want.Runs = "0x1", "70", 200, 3
	want.Ended, want.Body = 1, "digest"
	if err != nil || !reflect.DeepEqual(settled, want) {
		t.Errorf("ApplyMove = %+v, %v\nwant %+v", settled, err, want)
	}
	again, err := ApplyMove(settled, Change{To: Delivering}, testTime)
	want.State = Delivering
	if err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("an empty change took facts: %+v, %v", again, err)
	}
	final, err := ApplyMove(again, Change{To: Delivered}, testTime)
	if err != nil || final.Request != nil || final.Transaction != "0x1" {
		t.Errorf("delivered: %+v, %v; want no request any more", final, err)
	}
}

func TestReasonIsClean(t *testing.T) {
	for in, want := range map[string]string{
		"insufficient_funds":      "insufficient_funds",
		"a\x00b\nc\x1b[31md":      "a b c [31md",
		"\xff\xfebroken":          "broken",
		strings.Repeat("x", 1000): strings.Repeat("x", maxReason),
	} {
		if got := cleanReason(in); got != want {
			t.Errorf("cleanReason(%q) = %q", in, got)
		}
	}
	if got := cleanReason(strings.Repeat("€", 1000)); !utf8.ValidString(got) || len(got) > maxReason {
		t.Errorf("cut to %d bytes, valid: %v", len(got), utf8.ValidString(got))
	}
}

func TestMatch(t *testing.T) {
	p := Payment{
		State: Settled, Payer: "p", Method: "GET", Host: "h", URL: "/u", Created: testTime,
	}
	for _, c := range []struct {
		name   string
		filter Filter
		want   bool
	}{
		{"all", Filter{}, true},
		{"limit is not a filter", Filter{Limit: 1}, true},
		{"state", Filter{States: []State{Unknown, Settled}}, true},
		{"other state", Filter{States: []State{Unknown}}, false},
		{"request", Filter{Payer: "p", Method: "GET", Host: "h", URL: "/u"}, true},
		{"other payer", Filter{Payer: "q"}, false},
		{"other method", Filter{Method: "POST"}, false},
		{"other host", Filter{Host: "i"}, false},
		{"other url", Filter{URL: "/v"}, false},
		{"since now", Filter{Since: testTime}, true},
		{"since later", Filter{Since: testTime.Add(1)}, false},
		{"until now", Filter{Until: testTime}, false},
		{"until later", Filter{Until: testTime.Add(1)}, true},
	} {
		if got := c.filter.Match(p); got != c.want {
			t.Errorf("%s: Match = %v", c.name, got)
		}
	}
}
