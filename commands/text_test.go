package commands

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddy-paywall/caddy-paywall/check"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/routes"
)

// nasty has a character of each kind that a terminal obeys, or does not show.
const nasty = "a\x1b[31m\x1b]0;t\x07\u009b2J\x7f\u202e\u2066\u2069\u200e\u200f\u200b\u2060\ufeff\u00ad\u2028\u3164\ufe0f\U000e0041\r\bz"

// mustShow fails unless all of the text shows; lines may end.
func mustShow(t *testing.T, what, s string) {
	t.Helper()
	for i, r := range s {
		if r != '\n' && !shows(r) {
			t.Fatalf("%s has %U: %q", what, r, s[max(0, i-20):min(len(s), i+20)])
		}
	}
}

func TestWhatShows(t *testing.T) {
	for in, want := range map[string]string{
		nasty:                          "a[31m]0;t2Jz",
		"one\ttwo\nthree":              "one two three",
		"\xff\xc2 ok":                  " ok",
		"Grüße, 世界 and e\u0301":        "Grüße, 世界 and e\u0301",
		strings.Repeat("ä", maxText):   strings.Repeat("ä", maxText/2) + "…",
		"a" + strings.Repeat("ä", 999): "a" + strings.Repeat("ä", maxText/2-1) + "…",
	} {
		if got := clean(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	if got := phrase("x" + strings.Repeat(" ", 80) + "price: 0.01"); got != "x price: 0.01" {
		t.Errorf("%q", got)
	}
	if got := phrase(strings.Repeat("x", 300)); len(got) > maxPhrase+len("…") {
		t.Errorf("%q", got)
	}
}

// FuzzText: whatever comes from elsewhere, what is printed of it shows, and JSON
// keeps its value.
func FuzzText(f *testing.F) {
	f.Add(nasty, 3)
	f.Add("\xf0\x9f\x98\x80\xff", 2)
	f.Fuzz(func(t *testing.T, s string, cut int) {
		for name, got := range map[string]string{"clean": clean(s), "strip": strip(s), "phrase": phrase(s), "inert": inert(s)} {
			mustShow(t, name, got)
			if strings.ContainsRune(got, '\n') {
				t.Errorf("%s: two lines", name)
			}
		}
		var out bytes.Buffer
		terminal := &screen{w: &out}
		for rest := []byte(s); len(rest) > 0; {
			n := min(max(cut, 1), len(rest))
			if _, err := terminal.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		mustShow(t, "screen", strings.ReplaceAll(out.String(), "\t", ""))
		raw, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		escaped := escapeJSON(raw)
		mustShow(t, "JSON", string(escaped))
		var back string
		if err := json.Unmarshal(escaped, &back); err != nil || utf8.ValidString(s) && back != s {
			t.Errorf("%q became %q, %v", s, back, err)
		}
	})
}

// TestForeignTextsShow: no command prints what a terminal would obey, in any of
// its formats.
func TestForeignTextsShow(t *testing.T) {
	payment := ledger.Payment{
		ID: strings.Repeat("a", 20), Payer: nasty, PayTo: nasty, Network: nasty, Asset: nasty, Amount: nasty, Method: nasty, Host: nasty, URL: nasty,
		Identifier: nasty, Facilitator: nasty, Transaction: nasty, Reason: nasty, Runs: 1,
	}
	rows := func(yield func(ledger.Payment, error) bool) { yield(payment, nil) }
	report := &check.Report{
		Findings:    []check.Finding{{Severity: check.Open, Rule: "open", URL: nasty, Request: nasty, Protocol: nasty, Message: nasty}},
		Unreachable: []string{nasty},
	}
	findings := []routes.Finding{{Severity: routes.Error, Rule: "x", Message: nasty}}
	for name, print := range map[string]func(*bytes.Buffer) error{
		"payments, table": func(b *bytes.Buffer) error { return printTable(b, rows) },
		"payments, json":  func(b *bytes.Buffer) error { return printJSON(b, rows) },
		"payments, csv":   func(b *bytes.Buffer) error { return printCSV(b, rows) },
		"a payment":       func(b *bytes.Buffer) error { tell(payment, b); return nil },
		"check, table":    func(b *bytes.Buffer) error { return printReport(b, "table", report) },
		"check, json":     func(b *bytes.Buffer) error { return printReport(b, "json", report) },
		"validate, text":  func(b *bytes.Buffer) error { return printFindings(b, "text", findings) },
		"validate, json":  func(b *bytes.Buffer) error { return printFindings(b, "json", findings) },
	} {
		var out bytes.Buffer
		if err := print(&out); err != nil {
			t.Error(name, err)
		}
		mustShow(t, name, out.String())
	}
}

// TestNoFormulas: a spreadsheet takes nothing that came from elsewhere for a
// formula, also behind what does not show.
func TestNoFormulas(t *testing.T) {
	for _, s := range []string{"=1", "+1", "-1", "@x", "\t=1", "\r=1", "\u200b=1", " =1", "＝1"} {
		if got := inert(s); got[0] != '\'' {
			t.Errorf("%q: %q", s, got)
		}
	}
}
