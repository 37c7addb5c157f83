package commands

import (
	"bytes"
	"context"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/client"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/memory"
	"github.com/caddy-paywall/caddy-paywall/ledger/sqlite"
	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// book is a ledger with five payments in it.
type book struct{ *memory.Ledger }

func (book) Close() error { return nil }

// Newest has the limit look at the newest ones, as the ledgers do.
func (b book) Newest(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	return func(yield func(ledger.Payment, error) bool) {
		limit := f.Limit
		f.Limit = 0
		var all []ledger.Payment
		for p, err := range b.List(ctx, f) {
			if err != nil {
				yield(p, err)
				return
			}
			all = append(all, p)
		}
		for i, p := range slices.Backward(all) {
			if !yield(p, nil) || len(all)-i == limit {
				return
			}
		}
	}
}

// Begins finds them one by one, which the ledgers do not.
func (b book) Begins(ctx context.Context, id string) (found []ledger.Payment, err error) {
	for p, err := range b.List(ctx, ledger.Filter{}) {
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(p.ID, id) {
			found = append(found, p)
		}
	}
	return found, nil
}

func newBook(t *testing.T) book {
	t.Helper()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	l := memory.New(memory.Options{Now: func() time.Time { return now }})
	for i, way := range [][]ledger.State{
		{ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Delivered},
		{ledger.Settling, ledger.Settled, ledger.Settled},
		{ledger.Settling, ledger.Unknown},
		{ledger.Settling, ledger.Refused},
		{ledger.Settling, ledger.Settled, ledger.Delivering, ledger.Delivered}, // and taken back
	} {
		now = now.Add(time.Minute)
		c, err := l.Claim(context.Background(), ledger.Payment{
			Key: ledger.Key("key" + string(rune('0'+i))), Scheme: "exact", Network: "eip155:84532",
			Asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e", Payer: "0xpayer" + string(rune('0'+i)), PayTo: "0xpayee", Amount: "10000",
			ValidBefore: now.Add(time.Hour), Method: "GET", Host: "shop.example", URL: "/articles/" + string(rune('0'+i)) + "\x1b[31m",
			Request: []byte("SIGNATURE"), Keep: now.Add(time.Hour),
		}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range way {
			if c.Payment, err = l.Move(context.Background(), c, ledger.Change{To: to, Transaction: "0xtx", Runs: 1, Answer: []byte("ANSWER")}); err != nil {
				t.Fatal(err)
			}
		}
	}
	c, err := l.Take(context.Background(), "key4", ledger.Delivered, time.Minute)
	if err == nil {
		_, err = l.Move(context.Background(), c, ledger.Change{To: ledger.Delivered, Reorganised: true, Reason: ledger.ReasonReverted})
	}
	if err != nil {
		t.Fatal(err)
	}
	return book{l}
}

func TestPrintPayments(t *testing.T) {
	b := newBook(t)
	for name, tc := range map[string]struct {
		flags paymentsFlags
		want  []string
		not   []string
	}{
		"table":    {paymentsFlags{format: "table"}, []string{"delivered", "settled", "unknown", "refused", "0.01 USDC", "0xtx"}, []string{"\x1b"}},
		"owed":     {paymentsFlags{format: "table", owed: true}, []string{"settled", "unknown"}, []string{"delivered", "refused"}},
		"state":    {paymentsFlags{format: "csv", states: []string{"refused"}}, []string{"refused,", "id,state"}, []string{"delivered"}},
		"payer":    {paymentsFlags{format: "json", payer: "0xpayer1"}, []string{`"state":"settled"`, `"amount":"10000"`}, []string{"0xpayer0"}},
		"path":     {paymentsFlags{format: "json", path: "/articles/2"}, []string{`"payer":"0xpayer2"`}, []string{"0xpayer1"}},
		"reverted": {paymentsFlags{format: "json", reverted: true, limit: 1}, []string{`"payer":"0xpayer4"`, `"reason":"settlement_reverted"`}, []string{"0xpayer0"}},
		"limit":    {paymentsFlags{format: "json", path: "/articles", limit: 1}, []string{`"payer":"0xpayer4"`}, []string{"0xpayer3"}},
		"newest":   {paymentsFlags{format: "json", limit: 2}, []string{`"payer":"0xpayer4"`, `"payer":"0xpayer3"`}, []string{"0xpayer2"}},
		"until":    {paymentsFlags{format: "json", until: "2026-11-23T12:02:00Z"}, []string{`"payer":"0xpayer0"`}, []string{"0xpayer1"}},
		"since":    {paymentsFlags{format: "json", since: "2026-11-23T12:04:00Z"}, []string{`"payer":"0xpayer3"`}, []string{"0xpayer2"}},
	} {
		t.Run(name, func(t *testing.T) {
			filter, err := tc.flags.filter(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			print := map[string]func() error{
				"table": func() error { return printTable(&out, tc.flags.matching(b.Newest(t.Context(), filter))) },
				"json":  func() error { return printJSON(&out, tc.flags.matching(b.Newest(t.Context(), filter))) },
				"csv":   func() error { return printCSV(&out, tc.flags.matching(b.Newest(t.Context(), filter))) },
			}[tc.flags.format]
			if err := print(); err != nil {
				t.Fatal(err)
			}
			for _, want := range tc.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, out.String())
				}
			}
			for _, not := range append(tc.not, "SIGNATURE", "ANSWER") {
				if strings.Contains(out.String(), not) {
					t.Errorf("%q in\n%s", not, out.String())
				}
			}
		})
	}
}

func TestTellPayment(t *testing.T) {
	b := newBook(t)
	var out bytes.Buffer
	id := ledger.ID("key1")
	p, code, err := findPayment(t.Context(), b, strings.ToUpper(id[:10]))
	if err != nil || code != exitOK {
		t.Fatal(code, err)
	}
	tell(p, &out)
	for _, want := range []string{id, "0xpayer1 came with an authorization of 0.01 USDC", "0xtx", "the goods have not arrived", "the upstream was started 3 times;"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if _, code, err := findPayment(t.Context(), b, "ffffffffffff"); err == nil || code != exitNoPayment {
		t.Error(code, err)
	}
	if _, code, err := findPayment(t.Context(), b, ""); err == nil || code != exitUsage {
		t.Error(code, err)
	}
}

// TestStoriesCountInWords: once is not "1 times".
func TestStoriesCountInWords(t *testing.T) {
	for runs, want := range map[int]string{1: "the upstream was started once; its last status was 200\n", 2: "the upstream was started 2 times; its last status was 200\n"} {
		var out bytes.Buffer
		tell(ledger.Payment{ID: "x", State: ledger.Delivered, Runs: runs, Status: 200}, &out)
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// TestReceiptsWithoutATransaction: a payer is not told of a transaction called none.
func TestReceiptsWithoutATransaction(t *testing.T) {
	for _, outcome := range []client.Outcome{client.Delivered, client.Pending, client.Refused} {
		for transaction, want := range map[string]string{"": "no transaction on base-sepolia", "0xabab": " transaction 0xabab on base-sepolia"} {
			var out bytes.Buffer
			result := &client.Result{Outcome: outcome, Payment: &client.Payment{}, Receipt: &x402.Receipt{Success: outcome == client.Delivered, Transaction: transaction}}
			result.Payment.Offer.Network, _ = money.FindNetwork("base-sepolia")
			(&report{w: &out}).paid(result)
			if !strings.Contains(out.String(), want) || strings.Contains(out.String(), "none") {
				t.Errorf("%s: no %q in %s", outcome, want, out.String())
			}
		}
	}
}

// TestPaymentTimes: what an operator writes for a time.
func TestPaymentTimes(t *testing.T) {
	zone := time.FixedZone("here", 3600)
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, zone)
	for text, want := range map[string]time.Time{
		"7d": time.Date(2026, 11, 23, 12, 0, 0, 0, zone), "0d": now, "24h": now.Add(-24 * time.Hour), "1h30m": now.Add(-90 * time.Minute),
		"2026-11-01":           time.Date(2026, 11, 1, 0, 0, 0, 0, zone),
		"2026-11-01T12:00":     time.Date(2026, 11, 1, 12, 0, 0, 0, zone),
		"2026-11-01 12:00":     time.Date(2026, 11, 1, 12, 0, 0, 0, zone),
		"2026-11-01T12:00:01":  time.Date(2026, 11, 1, 12, 0, 1, 0, zone),
		"2026-11-01T12:00:00Z": time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), "2026-11-01T12:00:00-05:00": time.Date(2026, 11, 1, 17, 0, 0, 0, time.UTC),
	} {
		if got, err := parseTime("--since", text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %s %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"yesterday", "-7d", "7", "1.5d", "d", "99999999d", "2026-13-01", "2026-02-30", "01.11.2026", "2026-11", "-3h"} {
		if got, err := parseTime("--since", text, now); err == nil || !strings.Contains(err.Error(), "7d") || !strings.Contains(err.Error(), "2026-11-01") {
			t.Errorf("%s: %s %v", text, got, err)
		}
	}
}

func TestPaymentsUsage(t *testing.T) {
	for name, f := range map[string]paymentsFlags{
		"format":        {format: "xml"},
		"state":         {format: "table", states: []string{"paid"}},
		"owed or state": {format: "table", owed: true, states: []string{"settled"}},
		"since":         {format: "table", since: "yesterday"},
		"until":         {format: "table", until: "-3h"},
		"limit":         {format: "table", limit: -1},
	} {
		if code, err := listPayments(t.Context(), f, nil, &bytes.Buffer{}, time.Now()); err == nil || code != exitUsage {
			t.Errorf("%s: %d %v", name, code, err)
		}
	}
	if code, err := listPayments(t.Context(), paymentsFlags{format: "table", source: source{postgresEnv: "PAYWALL_TEST_UNSET"}}, nil, &bytes.Buffer{}, time.Now()); err == nil || code != exitFailure {
		t.Errorf("unset: %d %v", code, err)
	}
}

// The command reads the file of a gateway that runs, and finds a payer in any
// spelling, and a payment by the beginning of its id in any format.
func TestPaymentsInAFile(t *testing.T) {
	const payer = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
	file := filepath.Join(t.TempDir(), "payments.db")
	l, err := sqlite.Open(file, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, p := range []ledger.Payment{{Key: "one", Payer: payer, Host: "=1+1"}, {Key: "two", Payer: "0xother"}} {
		c, err := l.Claim(t.Context(), p, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling}); err != nil {
			t.Fatal(err)
		}
	}
	id := ledger.ID("one")
	for name, tc := range map[string]struct {
		flags paymentsFlags
		args  []string
		want  string
	}{
		"a payer":         {paymentsFlags{format: "json", payer: strings.ToLower(payer)}, nil, `"id":"` + id},
		"its story":       {paymentsFlags{format: "table"}, []string{id[:8]}, "payment " + id},
		"its story, json": {paymentsFlags{format: "json"}, []string{strings.ToUpper(id[:8])}, `"id":"` + id},
		"its story, csv":  {paymentsFlags{format: "csv"}, []string{id}, ",'=1+1,"},
	} {
		tc.flags.file = file
		var out bytes.Buffer
		code, err := listPayments(t.Context(), tc.flags, tc.args, &out, time.Now())
		if err != nil || code != exitOK || !strings.Contains(out.String(), tc.want) || strings.Contains(out.String(), ledger.ID("two")) {
			t.Errorf("%s: %d %v, no %q in\n%s", name, code, err, tc.want, out.String())
		}
	}
	if code, err := listPayments(t.Context(), paymentsFlags{source: source{file: file}, format: "json"}, []string{"zz"}, &bytes.Buffer{}, time.Now()); code != exitNoPayment || err == nil {
		t.Error(code, err)
	}
}

// TestBackup: the command copies the ledger of a gateway that runs, and a gateway goes on
// from the copy. It overwrites nothing, and refuses what is no ledger with words that
// help.
func TestBackup(t *testing.T) {
	dir := t.TempDir()
	file, copied := filepath.Join(dir, "payments.db"), filepath.Join(dir, "copy.db")
	l, err := sqlite.Open(file, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := l.Claim(t.Context(), ledger.Payment{Key: "one", Payer: "0xpayer", Request: []byte("signed")}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if code, err := backup(t.Context(), file, copied, &out); err != nil || code != exitOK || !strings.Contains(out.String(), copied) {
		t.Fatal(code, err, out.String())
	}
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	if code, err := backup(t.Context(), file, copied, &out); err == nil || code != exitFailure || !strings.Contains(err.Error(), "nothing is overwritten") {
		t.Error(code, err)
	}

	restored, err := sqlite.Open(copied, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer restored.Close()
	if p, err := restored.Get(t.Context(), "one"); err != nil || p.State != ledger.Settling || string(p.Request) != "signed" {
		t.Errorf("%+v, %v", p, err)
	}

	if err := os.WriteFile(copied+".log-0000000000000001", nil, 0o600); err != nil { // of a version before the first release
		t.Fatal(err)
	}
	if code, err := backup(t.Context(), copied, filepath.Join(dir, "third.db"), &out); err == nil || code != exitFailure || !strings.Contains(err.Error(), "move all of") {
		t.Error(code, err)
	}
}

// TestVerify: the command names each payment that a disk has changed, and the others are
// counted.
func TestVerify(t *testing.T) {
	file := filepath.Join(t.TempDir(), "payments.db")
	l, err := sqlite.Open(file, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []ledger.Key{"one", "two"} {
		c, err := l.Claim(t.Context(), ledger.Payment{Key: key, Payer: "0xpayer", PayTo: "payee of " + string(key)}, time.Minute)
		if err == nil {
			_, err = l.Move(t.Context(), c, ledger.Change{To: ledger.Settling})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if code, err := verifyLedger(t.Context(), file, &out); err != nil || code != exitOK || !strings.Contains(out.String(), "2 payments are") {
		t.Error(code, err, out.String())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Replace(b, []byte("payee of one"), []byte("payee of 0ne"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	code, err := verifyLedger(t.Context(), file, &out)
	if err == nil || code != exitDamaged || !strings.Contains(err.Error(), "1 payments are whole, 1 unreadable") {
		t.Error(code, err)
	}
	if text := out.String(); !strings.Contains(text, "unreadable: "+ledger.ID("one")) || strings.Contains(text, ledger.ID("two")) {
		t.Error(text)
	}
	if code, err := verifyLedger(t.Context(), filepath.Join(t.TempDir(), "none.db"), &out); err == nil || code != exitFailure {
		t.Error(code, err)
	}
}

// TestNothingIsOwed: who asks what is owed is told so where it is nothing, in a
// table; the other formats are for programs.
func TestNothingIsOwed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "payments.db")
	l, err := sqlite.Open(file, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	list := func(flags paymentsFlags) string {
		t.Helper()
		flags.file, flags.owed = file, true
		var out bytes.Buffer
		if code, err := listPayments(t.Context(), flags, nil, &out, time.Now()); err != nil || code != exitOK {
			t.Fatal(code, err)
		}
		return out.String()
	}
	for want, flags := range map[string]paymentsFlags{
		"nothing is owed\n":                           {format: "table"},
		"nothing is owed, of what the flags select\n": {format: "table", host: "shop.example"},
		"": {format: "json"},
	} {
		if got := list(flags); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	c, err := l.Claim(t.Context(), ledger.Payment{Key: "one", Payer: "0xpayer"}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Move(t.Context(), c, ledger.Change{To: ledger.Settling}); err != nil {
		t.Fatal(err)
	}
	if got := list(paymentsFlags{format: "table"}); !strings.Contains(got, "0xpayer") || strings.Contains(got, "nothing") {
		t.Error(got)
	}
}
