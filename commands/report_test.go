package commands

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/caddy-paywall/caddy-paywall/traffic"
)

var reported = time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC)

// counted is the ledger's file beside which a gateway has counted two days.
func counted(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "payments.db")
	store := traffic.NewSQLite(traffic.FileBeside(file))
	row := func(at time.Time, line string, who traffic.Client, unit string, s traffic.Sums) traffic.Row {
		return traffic.Row{Key: traffic.Key{Hour: at, Site: "shop.example", Line: line, Client: who, Unit: unit}, Sums: s}
	}
	amount := decimal.RequireFromString
	if err := store.Add(t.Context(), []traffic.Row{
		row(reported, "/articles/*", traffic.Client{Kind: "train", Name: "GPTBot", Proof: "verified"}, "USD", traffic.Sums{Asked: 12340, Challenged: 12340, Worth: amount("123.40")}),
		row(reported, "/articles/*", traffic.Client{Kind: "train", Name: "GPTBot", Proof: "claimed"}, "USD", traffic.Sums{Asked: 300, Observed: 300, Worth: amount("3")}),
		row(reported.Add(24*time.Hour), "/api", traffic.Client{Kind: "agent", Name: "=cmd|'<b>\x1b[31m", Proof: "claimed"}, "USD", traffic.Sums{Asked: 2, Paid: 2, Delivered: 1, Worth: amount("0.1"), Earned: amount("0.1")}),
		row(reported.Add(24*time.Hour), "/api", traffic.Client{Proof: "browser"}, "EURC", traffic.Sums{Asked: 1, Paid: 1, Delivered: 1, Worth: amount("0.02"), Earned: amount("0.02")}),
	}); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

func reports(t *testing.T, f reportFlags) (string, int, error) {
	t.Helper()
	if f.by == "" {
		f.by = "client"
	}
	if f.format == "" {
		f.format = "table"
	}
	var out bytes.Buffer
	code, err := f.run(t.Context(), &out, reported.Add(26*time.Hour))
	return out.String(), code, err
}

func TestReportSumsUp(t *testing.T) {
	file := counted(t)
	for name, c := range map[string]struct {
		flags reportFlags
		want  []string // lines, with single spaces
	}{
		"by client": {reportFlags{}, []string{
			"CLIENT KIND REQUESTS VERIFIED WORTH CHALLENGED PAID DELIVERED EARNED",
			"GPTBot train 12640 97 % 126.4 USD 12340 0 0 0",
			"=cmd|'<b>[31m agent 2 0 % 0.1 USD 0 2 1 0.1 USD",
			"(browsers, or who says so) - 1 0 % 0.02 EURC 0 1 1 0.02 EURC",
			"total - 12643 97 % 126.5 USD + 0.02 EURC 12340 3 2 0.1 USD + 0.02 EURC",
		}},
		"by day": {reportFlags{by: "day"}, []string{
			"DAY REQUESTS VERIFIED WORTH CHALLENGED PAID DELIVERED EARNED",
			"2026-11-29 12640 97 % 126.4 USD 12340 0 0 0",
			"2026-11-30 3 0 % 0.1 USD + 0.02 EURC 0 3 2 0.1 USD + 0.02 EURC",
			"total 12643 97 % 126.5 USD + 0.02 EURC 12340 3 2 0.1 USD + 0.02 EURC",
		}},
		"by line, of the last hours": {reportFlags{by: "line", since: "5h"}, []string{
			"LINE REQUESTS VERIFIED WORTH CHALLENGED PAID DELIVERED EARNED",
			"shop.example /api 3 0 % 0.1 USD + 0.02 EURC 0 3 2 0.1 USD + 0.02 EURC",
			"total 3 0 % 0.1 USD + 0.02 EURC 0 3 2 0.1 USD + 0.02 EURC",
		}},
		"by outcome": {reportFlags{by: "outcome"}, []string{
			"OUTCOME REQUESTS WORTH EARNED",
			"asked 12643 126.5 USD + 0.02 EURC -", "observed 300 - -", "challenged 12340 - -", "paid 3 - 0.1 USD + 0.02 EURC", "answered otherwise 0 - -", "delivered 2 - -",
		}},
		"of nothing": {reportFlags{until: "2026-11-29T00:00:00Z"}, []string{"nothing with a price was asked for, of what the flags select"}},
		"csv": {reportFlags{format: "csv", by: "client", since: "5h"}, []string{
			"client,kind,asked,verified,observed,challenged,paid,delivered,unit,worth,earned",
			"'=cmd|'<b>[31m,agent,2,0,0,0,2,1,USD,0.1,0.1", `"(browsers, or who says so)",,1,0,0,0,1,1,EURC,0.02,0.02`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c.flags.file = file
			out, code, err := reports(t, c.flags)
			if code != 0 || err != nil {
				t.Fatal(code, err)
			}
			lines := strings.Split(strings.TrimSpace(out), "\n")
			for i, line := range lines {
				if got := strings.Join(strings.Fields(line), " "); i >= len(c.want) || got != c.want[i] {
					t.Errorf("line %d: %q", i, got)
				}
			}
			if len(lines) != len(c.want) {
				t.Errorf("%d lines, want %d", len(lines), len(c.want))
			}
		})
	}
}

func TestReportIsJSON(t *testing.T) {
	out, _, err := reports(t, reportFlags{source: source{file: counted(t)}, format: "json"})
	var r struct {
		Groups []struct {
			Label string
			Asked int
			Worth map[string]string
		}
		Total struct{ Earned map[string]string }
	}
	if err != nil || json.Unmarshal([]byte(out), &r) != nil || len(r.Groups) != 3 || r.Groups[0].Worth["USD"] != "126.4" || r.Total.Earned["EURC"] != "0.02" || strings.Contains(out, "\x1b") {
		t.Errorf("%v\n%s", err, out)
	}
}

// The page holds what strangers are called as text, and loads nothing.
func TestReportIsAPage(t *testing.T) {
	page := filepath.Join(t.TempDir(), "report.html")
	if _, code, err := reports(t, reportFlags{source: source{file: counted(t)}, html: page}); code != 0 {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil || strings.Contains(string(text), "<b>\x1b") || !strings.Contains(string(text), "&lt;b&gt;") || strings.Contains(string(text), "<script") || strings.Contains(string(text), "ZgotmplZ") {
		t.Errorf("%v\n%s", err, text)
	}
	for _, want := range []string{"126.4 USD", `width="100.0%"`, "97 %"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestReportFindsTheLedgerInAConfig(t *testing.T) {
	file := counted(t)
	config := filepath.Join(t.TempDir(), "caddy.json")
	t.Setenv("OUR_LEDGER", file)
	if err := os.WriteFile(config, []byte(`{"apps": {"paywall": {"ledger": {"type": "sqlite", "file": "{env.OUR_LEDGER}"}}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _, err := reports(t, reportFlags{source: source{config: config}}); err != nil || !strings.Contains(out, "GPTBot") {
		t.Error(err, out)
	}
}

func TestReportUsage(t *testing.T) {
	none := filepath.Join(t.TempDir(), "payments.db")
	for want, f := range map[string]reportFlags{
		"--by: want":             {by: "payer"},
		"--format: want":         {format: "xml"},
		"--exclude: counts know": {exclude: []string{"0x1"}},
		"--since: want":          {since: "yesterday"},
		"is not before":          {since: "2026-11-02T00:00:00Z", until: "2026-11-01T00:00:00Z"},
		"exclude each other":     {source: source{file: none, postgresEnv: "X"}},
		"the environment has no": {source: source{postgresEnv: "NO_SUCH_VARIABLE"}},
		"nothing was counted at": {source: source{file: none}},
	} {
		if _, code, err := reports(t, f); code == 0 || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %d %v", want, code, err)
		}
	}
}
