package client

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// newNode is a node of Base Sepolia that knows one allowance and one nonce.
func newNode(t *testing.T, allowance, nonce int64) string {
	t.Helper()
	return nodeOf(t, 84532, map[string]int64{"0xdd62ed3e": allowance, "0x7ecebe00": nonce})
}

func nodeOf(t *testing.T, chain int64, calls map[string]int64) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked struct {
			Method string
			Params []json.RawMessage
		}
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			t.Error(err)
		}
		result := fmt.Sprintf("0x%x", chain)
		if asked.Method == "eth_call" {
			var call struct{ To, Data string }
			if err := json.Unmarshal(asked.Params[0], &call); err != nil || !strings.EqualFold(call.To, usdc) {
				t.Errorf("called %+v, %v", call, err)
			}
			number, known := calls[call.Data[:10]]
			if !known {
				_, _ = w.Write([]byte(`{"jsonrpc":"2.0","id":1,"error":{"code":3,"message":"execution reverted"}}`))
				return
			}
			result = fmt.Sprintf("0x%064x", big.NewInt(number))
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"jsonrpc": "2.0", "id": 1, "result": result})
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestSponsor: with a node the client signs an approval where there is none and
// the seller offers it, and nothing where the payment could not move.
func TestSponsor(t *testing.T) {
	const domain = `"name":"USDC","version":"2",`
	sponsored := x402.DeclareExtensions(x402.EIP2612GasSponsoring)
	for name, tt := range map[string]struct {
		rpc        string
		extra      string
		extensions jsontext.Value
		signs      bool   // an approval
		why        string // "" means that it is paid
	}{
		"approved":             {newNode(t, 10000, 3), domain, sponsored, false, ""},
		"not approved":         {newNode(t, 9999, 3), domain, sponsored, true, ""},
		"no node":              {"", domain, sponsored, false, ""},
		"not offered":          {newNode(t, 0, 3), domain, x402.DeclareExtensions(), false, "not approved"},
		"no EIP-2612":          {newNode(t, 0, 3), "", sponsored, false, "not approved"},
		"another chain":        {nodeOf(t, 1, nil), domain, sponsored, false, "on chain 1"},
		"no nonces":            {nodeOf(t, 84532, map[string]int64{"0xdd62ed3e": 0}), domain, sponsored, false, "nonce"},
		"no token":             {nodeOf(t, 84532, nil), domain, sponsored, false, "allowance"},
		"no node at this port": {"http://127.0.0.1:1", domain, sponsored, false, "asking the node"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSeller(t)
			r := requirement()
			r.Extra = jsontext.Value(`{` + tt.extra + `"assetTransferMethod":"permit2"}`)
			template, err := x402.NewTemplate([]x402.Requirement{r}, "", "", tt.extensions)
			if err != nil {
				t.Fatal(err)
			}
			s.challenge = func(w http.ResponseWriter) {
				w.Header().Set(x402.HeaderPaymentRequired, template.Header("https://shop.example/", x402.CodePaymentRequired))
				w.WriteHeader(http.StatusPaymentRequired)
			}
			c, _ := newClient(t)
			c.RPC = tt.rpc
			result, err := c.Do(s.get(t, "/"))
			if tt.why != "" {
				if err == nil || !strings.Contains(err.Error(), tt.why) || len(s.paid()) != 0 {
					t.Errorf("%v, sent %v", err, s.paid())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			result.Response.Body.Close()
			sent, err := x402.Decode(http.Header{s.paid()[0].header: {s.paid()[0].value}})
			if err != nil {
				t.Fatal(err)
			}
			if err := x402.CheckExtensions(tt.extensions, sent.Extensions); err != nil {
				t.Error(err)
			}
			if signs := strings.Contains(string(sent.Extensions), `"signature":"0x`); signs != tt.signs {
				t.Errorf("extensions %s", sent.Extensions)
			}
		})
	}
}
