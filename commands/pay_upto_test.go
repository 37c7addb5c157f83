package commands

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestPayUpto: a maximum is shown and agreed to as one, and what was charged of it
// is told.
func TestPayUpto(t *testing.T) {
	s := newSeller(t, func(w http.ResponseWriter, _ *http.Request) {
		r := x402.Receipt{Success: true, Network: "eip155:84532", Payer: payer, Amount: "380", Transaction: "0x" + strings.Repeat("ab", 32)}
		w.Header().Set(x402.HeaderPaymentResponse, r.Encode())
		_, _ = io.WriteString(w, "the goods")
	})
	s.price.Scheme, s.price.Amount = "upto", "500000"
	s.price.Extra = []byte(`{"assetTransferMethod":"permit2","facilitatorAddress":"` + payTo + `"}`)
	got := run(t, nil, "--dev-key", "0", s.URL)
	if got.code != exitTooDear || !strings.Contains(got.err, "up to 0.5 USDC is above the limit of $0.10") || len(s.paid()) != 0 {
		t.Errorf("%+v", got)
	}
	got = run(t, nil, "--dev-key", "0", "--max", "0.50", s.URL)
	if got.code != 0 || got.out != "the goods" || !strings.Contains(got.err, "price: up to 0.5 USDC") || !strings.Contains(got.err, "receipt: paid 0.00038 USDC, transaction") {
		t.Errorf("%+v", got)
	}
	got = run(t, nil, "--dry-run", "--dev-key", "0", "--max", "0.50", s.URL)
	if got.code != 0 || !strings.Contains(got.out, `"primaryType": "PermitWitnessTransferFrom"`) || !strings.Contains(got.out, `"facilitator": "`+payTo+`"`) {
		t.Errorf("%+v", got)
	}
}

// TestPayAllowance: what to do about a token that is not approved.
func TestPayAllowance(t *testing.T) {
	var s *seller
	s = newSeller(t, func(w http.ResponseWriter, _ *http.Request) { s.challenge(w, "permit2_allowance_required") })
	s.price.Extra = []byte(`{"assetTransferMethod":"permit2"}`)
	if got := run(t, nil, "--dev-key", "0", s.URL); got.code == 0 || !strings.Contains(got.err, "not approved for Permit2") || !strings.Contains(got.err, "--rpc") {
		t.Errorf("%+v", got)
	}
	if got := run(t, nil, "--dev-key", "0", "--rpc", "http://127.0.0.1:1", s.URL); got.code == 0 || !strings.Contains(got.err, "asking the node") || len(s.paid()) != 1 {
		t.Errorf("%+v", got)
	}
}
