package remote

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

// A facilitator that says yes is believed, with confirm, when the chain shows it.
func TestConfirm(t *testing.T) {
	open, moved, void := facilitator.Proof{}, facilitator.Proof{
		Evidence: facilitator.Moved, Transaction: "0x" + strings.Repeat("cd", 32), Block: facilitator.Block{Number: 7, Hash: "0xb"},
	},
		facilitator.Proof{Evidence: facilitator.Void, Reason: "expired"}
	away := errors.New("no node answers")
	since := time.Now().Add(-time.Minute)
	for name, c := range map[string]struct {
		says    string // the facilitator
		network string
		looks   []any // what the chain says each time
		want    facilitator.Outcome
		asked   int
	}{
		"at once":          {settledBody(), baseSepolia, []any{moved}, facilitator.Settled, 1},
		"a block later":    {settledBody(), baseSepolia, []any{open, away, moved}, facilitator.Settled, 3},
		"never":            {settledBody(), baseSepolia, []any{open, open, open, open}, facilitator.Unknown, 4},
		"nobody can tell":  {settledBody(), baseSepolia, []any{away, away}, facilitator.Unknown, 2},
		"it cannot be":     {settledBody(), baseSepolia, []any{void}, facilitator.Unknown, 1},
		"a no is believed": {`{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"` + baseSepolia + `"}`, baseSepolia, nil, facilitator.Refused, 0},
		"no node of it":    {strings.ReplaceAll(settledBody(), baseSepolia, "eip155:8453"), "eip155:8453", nil, facilitator.Settled, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := provision(t, &Facilitator{
				URL: serve(t, &fixed{status: 200, body: c.says}), RPC: map[string][]string{"base-sepolia": {"https://node.example"}}, Confirm: true,
			})
			asked := 0
			f.witness = func(_ context.Context, _ facilitator.Request, from time.Time) (facilitator.Proof, error) {
				if !from.Equal(since) {
					t.Errorf("it looks at blocks since %s", from)
				}
				said := c.looks[asked]
				asked++
				if err, ok := said.(error); ok {
					return facilitator.Proof{}, err
				}
				return said.(facilitator.Proof), nil
			}
			f.sleep = func(context.Context, time.Duration) error {
				if asked == len(c.looks) {
					return context.DeadlineExceeded
				}
				return nil
			}
			r := on(authorized("1761608000"), c.network, payer)
			r.Since = since
			s := f.Settle(t.Context(), r)
			if s.Outcome != c.want || asked != c.asked {
				t.Errorf("%+v, looked %d times", s, asked)
			}
			if c.want == facilitator.Settled && c.asked > 0 && (s.Transaction != moved.Transaction || s.Block != moved.Block) {
				t.Errorf("transaction %s in %+v", s.Transaction, s.Block)
			}
		})
	}
}

func TestUnmarshalConfirm(t *testing.T) {
	for lines, want := range map[string]string{
		"rpc base https://node.example\n confirm": "",
		"confirm\n confirm":                       "twice",
		"confirm onchain":                         "surplus word",
	} {
		var f Facilitator
		err := f.UnmarshalCaddyfile(caddyfile.NewTestDispenser("remote https://facilitator.example {\n " + lines + "\n}"))
		if want == "" && (err != nil || !f.Confirm) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", lines, err)
		}
	}
	if err := (&Facilitator{Confirm: true}).Validate(); err == nil {
		t.Error("nothing to confirm with, and no error")
	}
}
