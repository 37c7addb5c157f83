package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
)

// authorizationUsed is the topic of the event of that name in EIP-3009: the one
// proof on the chain that an authorization was spent.
const authorizationUsed = "0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5"

// transfer is the topic of ERC-20's Transfer.
const transfer = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"

// receipt is what the chain knows of a transaction.
type receipt struct {
	Status string `json:"status"`
	Logs   []struct {
		Address string   `json:"address"`
		Topics  []string `json:"topics"`
		Data    string   `json:"data"`
	} `json:"logs"`
}

// spends reports whether the transaction spent an authorization of the payer.
func (r *receipt) spends(token, payer string) bool {
	for _, l := range r.Logs {
		if strings.EqualFold(l.Address, token) && len(l.Topics) == 3 &&
			l.Topics[0] == authorizationUsed && l.Topics[1] == word(payer) {
			return true
		}
	}
	return false
}

// moves reports whether the transaction moved an amount of a token from one
// account to another.
func (r *receipt) moves(token, from, to string, amount int64) bool {
	for _, l := range r.Logs {
		n, ok := new(big.Int).SetString(l.Data, 0)
		if strings.EqualFold(l.Address, token) && len(l.Topics) == 3 && l.Topics[0] == transfer &&
			l.Topics[1] == word(from) && l.Topics[2] == word(to) && ok && n.IsInt64() && n.Int64() == amount {
			return true
		}
	}
	return false
}

// balance is what an account has of the test dollar, in atomic units.
func (s *stack) balance(t *testing.T, address string) int64 {
	t.Helper()
	return s.balanceOf(t, s.Token, address)
}

// balanceOf is what an account has of a token.
func (s *stack) balanceOf(t *testing.T, token, address string) int64 {
	t.Helper()
	const balanceOf = "0x70a08231"
	call := map[string]string{"to": token, "data": balanceOf + word(address)[2:]}
	var hex string
	if err := s.rpc(&hex, "eth_call", call, "latest"); err != nil {
		t.Fatal(err)
	}
	n, ok := new(big.Int).SetString(hex, 0)
	if !ok || !n.IsInt64() {
		t.Fatalf("balance of %s: %q", address, hex)
	}
	return n.Int64()
}

// receipt fetches a transaction's receipt; nil when the chain has none.
func (s *stack) receipt(t *testing.T, transaction string) *receipt {
	t.Helper()
	var r *receipt
	if err := s.rpc(&r, "eth_getTransactionReceipt", transaction); err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *stack) rpc(result any, method string, params ...any) error {
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return err
	}
	resp, err := http.Post(s.RPC, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Result json.RawMessage
		Error  *struct{ Message string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: %w", method, errors.New(answer.Error.Message))
	}
	return json.Unmarshal(answer.Result, result)
}

// word is an address as the 32 bytes that calls and topics have.
func word(address string) string {
	return "0x" + strings.Repeat("0", 24) + strings.ToLower(strings.TrimPrefix(address, "0x"))
}
