package remote

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

func TestSettleTakesNoOddBodyForAnAnswer(t *testing.T) {
	s := &fixed{}
	f := at(t, serve(t, s))
	for name, body := range oddBodies {
		for _, status := range statuses {
			s.status, s.body = status, body
			got := f.Settle(t.Context(), request())
			if got.Outcome != facilitator.Unknown || got.Reason != "settlement_pending" {
				t.Errorf("%s, status %d: got %+v, want unknown", name, status, got)
			}
		}
	}
}

// settleCase is an answer to /settle and what it means.
type settleCase struct {
	status  int
	body    string
	request func(*facilitator.Request)
	want    facilitator.Outcome
	tx      string // of the outcome; for Settled the default is tx
	reason  string // for Refused
}

const netw = `"network":"` + baseSepolia + `"`

func TestSettle(t *testing.T) {
	const (
		settled = facilitator.Settled
		refused = facilitator.Refused
		unknown = facilitator.Unknown
	)
	good := `"transaction":"` + tx + `",` + netw
	upto := func(amount string) func(*facilitator.Request) {
		return func(r *facilitator.Request) { r.Requirement.Scheme, r.Requirement.Amount = "upto", amount }
	}
	network := func(n string) func(*facilitator.Request) {
		return func(r *facilitator.Request) { *r = on(*r, n, "") }
	}
	noPayer := func(r *facilitator.Request) { r.Payer = "" }

	for name, c := range map[string]settleCase{
		// Yes.
		"yes":                      {status: 200, body: `{"success":true,` + good + `}`, want: settled},
		"yes, 201":                 {status: 201, body: `{"success":true,` + good + `}`, want: settled},
		"yes, nulls":               {status: 200, body: `{"success":true,` + good + `,"errorReason":null,"errorMessage":null,"payer":null,"amount":null,"extra":null,"extensions":null}`, want: settled},
		"yes, empty strings":       {status: 200, body: `{"success":true,` + good + `,"errorReason":"","payer":""}`, want: settled},
		"yes, payer":               {status: 200, body: `{"success":true,` + good + `,"payer":"` + strings.ToUpper(payer[2:]) + `"}`, want: unknown, tx: tx},
		"yes, payer in lower case": {status: 200, body: `{"success":true,` + good + `,"payer":"` + strings.ToLower(payer) + `"}`, want: settled},
		"yes, payer, ours unknown": {status: 200, body: `{"success":true,` + good + `,"payer":"` + stranger + `"}`, request: noPayer, want: settled},
		"yes, odd decoration":      {status: 200, body: `{"success":true,` + good + `,"extra":[1],"extensions":"x","amount":5,"errorMessage":{}}`, want: settled},
		"yes, upper-case hash":     {status: 200, body: `{"success":true,"transaction":"0x` + strings.Repeat("AB", 32) + `",` + netw + `}`, want: settled, tx: "0x" + strings.Repeat("AB", 32)},
		"yes, nothing of upto":     {status: 200, body: `{"success":true,"transaction":"","amount":"0",` + netw + `}`, request: upto("0"), want: settled, tx: "-"},
		"yes, Solana":              {status: 200, body: `{"success":true,"transaction":"` + solanaTx + `","network":"` + solana + `"}`, request: network(solana), want: settled, tx: solanaTx},
		"yes, another family":      {status: 200, body: `{"success":true,"transaction":"0.0.5@17/9","network":"hedera:mainnet"}`, request: network("hedera:mainnet"), want: settled, tx: "0.0.5@17/9"},
		// Yes, but.
		"yes, 400":                   {status: 400, body: `{"success":true,` + good + `}`, want: unknown, tx: tx},
		"yes, 500":                   {status: 500, body: `{"success":true,` + good + `}`, want: unknown, tx: tx},
		"yes, 302":                   {status: 302, body: `{"success":true,` + good + `}`, want: unknown},
		"yes, somebody else":         {status: 200, body: `{"success":true,` + good + `,"payer":"` + stranger + `"}`, want: unknown, tx: tx},
		"yes, payer a number":        {status: 200, body: `{"success":true,` + good + `,"payer":1}`, want: unknown, tx: tx},
		"yes, with a reason":         {status: 200, body: `{"success":true,` + good + `,"errorReason":"settlement_pending"}`, want: unknown, tx: tx},
		"yes, reason of odd type":    {status: 200, body: `{"success":true,` + good + `,"errorReason":false}`, want: unknown, tx: tx},
		"yes, no transaction":        {status: 200, body: `{"success":true,` + netw + `}`, want: unknown},
		"yes, empty transaction":     {status: 200, body: `{"success":true,"transaction":"",` + netw + `}`, want: unknown},
		"yes, null transaction":      {status: 200, body: `{"success":true,"transaction":null,` + netw + `}`, want: unknown},
		"yes, transaction a number":  {status: 200, body: `{"success":true,"transaction":7,` + netw + `}`, want: unknown},
		"yes, short transaction":     {status: 200, body: `{"success":true,"transaction":"0x1",` + netw + `}`, want: unknown, tx: "0x1"},
		"yes, zero transaction":      {status: 200, body: `{"success":true,"transaction":"0x` + strings.Repeat("0", 64) + `",` + netw + `}`, want: unknown, tx: "0x" + strings.Repeat("0", 64)},
		"yes, no 0x":                 {status: 200, body: `{"success":true,"transaction":"` + strings.Repeat("ab", 32) + `",` + netw + `}`, want: unknown, tx: strings.Repeat("ab", 32)},
		"yes, transaction and line":  {status: 200, body: `{"success":true,"transaction":"` + tx + `\n",` + netw + `}`, want: unknown},
		"yes, a Solana transaction":  {status: 200, body: `{"success":true,"transaction":"` + solanaTx + `",` + netw + `}`, want: unknown, tx: solanaTx},
		"yes, prose":                 {status: 200, body: `{"success":true,"transaction":"it is done",` + netw + `}`, want: unknown},
		"yes, no network":            {status: 200, body: `{"success":true,"transaction":"` + tx + `"}`, want: unknown, tx: tx},
		"yes, another network":       {status: 200, body: `{"success":true,"transaction":"` + tx + `","network":"eip155:8453"}`, want: unknown, tx: tx},
		"yes, network in v1 words":   {status: 200, body: `{"success":true,"transaction":"` + tx + `","network":"base-sepolia"}`, want: unknown, tx: tx},
		"yes, network in other case": {status: 200, body: `{"success":true,"transaction":"` + tx + `","network":"EIP155:84532"}`, want: unknown, tx: tx},
		"yes, something of upto":     {status: 200, body: `{"success":true,"transaction":"",` + netw + `}`, request: upto("1"), want: unknown},
		"yes, zero of exact":         {status: 200, body: `{"success":true,"transaction":"",` + netw + `}`, request: func(r *facilitator.Request) { r.Requirement.Amount = "0" }, want: unknown},
		"yes, Solana, an EVM hash":   {status: 200, body: `{"success":true,"transaction":"` + tx + `","network":"` + solana + `"}`, request: network(solana), want: unknown, tx: tx},
		"yes, Solana, all ones":      {status: 200, body: `{"success":true,"transaction":"` + strings.Repeat("1", 64) + `","network":"` + solana + `"}`, request: network(solana), want: unknown, tx: strings.Repeat("1", 64)},
		"yes, another, too long":     {status: 200, body: `{"success":true,"transaction":"` + strings.Repeat("a", 201) + `","network":"xrpl:0"}`, request: network("xrpl:0"), want: unknown},
		"yes, and is not an answer":  {status: 200, body: `{"isValid":true}`, want: unknown},
		// No.
		"no":                        {status: 200, body: `{"success":false,"errorReason":"insufficient_funds","transaction":"",` + netw + `}`, want: refused, reason: "insufficient_funds"},
		"no, 400":                   {status: 400, body: `{"success":false,"errorReason":"insufficient_funds","transaction":"",` + netw + `}`, want: refused, reason: "insufficient_funds"},
		"no, 500":                   {status: 500, body: `{"success":false,"errorReason":"insufficient_funds","transaction":"",` + netw + `}`, want: refused, reason: "insufficient_funds"},
		"no, without a transaction": {status: 400, body: `{"success":false,"errorReason":"invalid_payload"}`, want: refused, reason: "invalid_payload"},
		"no, nulls":                 {status: 200, body: `{"success":false,"errorReason":"invalid_payload","transaction":null,"network":null,"payer":null}`, want: refused, reason: "invalid_payload"},
		"no, in prose":              {status: 200, body: `{"success":false,"errorReason":"Insufficient balance of 0x12","transaction":""}`, want: refused, reason: "settlement_failed"},
		"no, simulation":            {status: 200, body: `{"success":false,"errorReason":"invalid_exact_evm_transaction_simulation_failed","errorMessage":"execution reverted: ERC20: transfer amount exceeds balance","transaction":""}`, want: refused, reason: "invalid_exact_evm_transaction_simulation_failed"},
		// No, but.
		"no, 302":                  {status: 302, body: `{"success":false,"errorReason":"invalid_payload"}`, want: unknown},
		"no, no reason":            {status: 200, body: `{"success":false,"transaction":"",` + netw + `}`, want: unknown},
		"no, null reason":          {status: 200, body: `{"success":false,"errorReason":null,"transaction":""}`, want: unknown},
		"no, empty reason":         {status: 200, body: `{"success":false,"errorReason":"","transaction":""}`, want: unknown},
		"no, reason of odd type":   {status: 200, body: `{"success":false,"errorReason":["invalid_payload"],"transaction":""}`, want: unknown},
		"no, a transaction":        {status: 200, body: `{"success":false,"errorReason":"invalid_payload","transaction":"` + tx + `"}`, want: unknown, tx: tx},
		"no, a blank transaction":  {status: 200, body: `{"success":false,"errorReason":"invalid_payload","transaction":" "}`, want: unknown},
		"no, transaction a number": {status: 200, body: `{"success":false,"errorReason":"invalid_payload","transaction":0}`, want: unknown},
		"no, somebody else":        {status: 200, body: `{"success":false,"errorReason":"invalid_payload","payer":"` + stranger + `"}`, want: unknown},
		"no, another network":      {status: 200, body: `{"success":false,"errorReason":"invalid_payload","network":"eip155:1"}`, want: unknown},
		"no, pending":              {status: 500, body: `{"success":false,"errorReason":"settlement_pending","transaction":"` + tx + `",` + netw + `}`, want: unknown, tx: tx},
		"no, pending without hash": {status: 200, body: `{"success":false,"errorReason":"settlement_pending","transaction":""}`, want: unknown},
		"no, nonce used":           {status: 200, body: `{"success":false,"errorReason":"invalid_exact_evm_nonce_already_used","transaction":""}`, want: unknown},
		"no, message says used":    {status: 200, body: `{"success":false,"errorReason":"invalid_payload","errorMessage":"FiatTokenV2: authorization is used or canceled","transaction":""}`, want: unknown},
		// The transaction is worth keeping, whatever else is wrong.
		"error with a hash": {status: 502, body: `{"error":"receipt","transaction":"` + tx + `"}`, want: unknown, tx: tx},
	} {
		t.Run(name, func(t *testing.T) {
			r := request()
			if c.request != nil {
				c.request(&r)
			}
			f := at(t, serve(t, &fixed{status: c.status, body: c.body}))
			checkSettlement(t, f.Settle(t.Context(), r), r, c)
		})
	}
}

func checkSettlement(t *testing.T, got facilitator.Settlement, r facilitator.Request, c settleCase) {
	t.Helper()
	if got.Outcome != c.want {
		t.Fatalf("got %s (%s), want %s", got.Outcome, got.Detail, c.want)
	}
	wantTx := c.tx
	if c.want == facilitator.Settled && wantTx == "" {
		wantTx = tx
	}
	if wantTx == "-" {
		wantTx = ""
	}
	if got.Transaction != wantTx {
		t.Errorf("transaction %q, want %q", got.Transaction, wantTx)
	}
	wantReason := map[facilitator.Outcome]string{
		facilitator.Unknown: "settlement_pending",
		facilitator.Refused: c.reason,
	}[got.Outcome]
	if got.Reason != wantReason {
		t.Errorf("reason %q, want %q", got.Reason, wantReason)
	}
	if got.Network != r.Requirement.Network {
		t.Errorf("network %q, want %q", got.Network, r.Requirement.Network)
	}
}

func TestSettlePassesSchemeDataOn(t *testing.T) {
	body := `{"success":true,"transaction":"` + tx + `",` + netw + `,"amount":"123","payer":"` + payer +
		`","extra":{"channelId":"1"},"extensions":{"a":{"b":1}}}`
	f := at(t, serve(t, &fixed{status: 200, body: body}))
	got := f.Settle(t.Context(), request())
	want := facilitator.Settlement{
		Outcome: facilitator.Settled, Transaction: tx, Network: baseSepolia, Payer: payer, Amount: "123", Detail: got.Detail,
		Extra: jsontext.Value(`{"channelId":"1"}`), Extensions: jsontext.Value(`{"a":{"b":1}}`),
	}
	if string(got.Extra) != string(want.Extra) || string(got.Extensions) != string(want.Extensions) {
		t.Errorf("extra %s, extensions %s", got.Extra, got.Extensions)
	}
	if got.Amount != "123" || got.Payer != payer {
		t.Errorf("amount %q, payer %q", got.Amount, got.Payer)
	}
}

func TestSettleDropsSchemeDataThatNoHeaderCarries(t *testing.T) {
	body := `{"success":true,"transaction":"` + tx + `",` + netw + `,"amount":"12e3","extra":{"x":"` + strings.Repeat("x", maxScheme) + `"}}`
	f := at(t, serve(t, &fixed{status: 200, body: body}))
	got := f.Settle(t.Context(), request())
	if got.Outcome != facilitator.Settled || got.Extra != nil || got.Amount != "" {
		t.Errorf("got %+v", got)
	}
}

func TestSettleOfVersion1MayNameTheNetworkAsVersion1(t *testing.T) {
	body := `{"success":true,"transaction":"` + tx + `","network":"base-sepolia"}`
	f := at(t, serve(t, &fixed{status: 200, body: body}))
	if got := f.Settle(t.Context(), requestV1()); got.Outcome != facilitator.Unknown {
		t.Errorf("sent as version 2: got %s, want unknown", got.Outcome)
	}
	f.shared.supported.Store(listing(1, "base-sepolia"))
	got := f.Settle(t.Context(), requestV1())
	if got.Outcome != facilitator.Settled || got.Network != baseSepolia {
		t.Errorf("sent as version 1: got %+v, want settled on %s", got, baseSepolia)
	}
}
