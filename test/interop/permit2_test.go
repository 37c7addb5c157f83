package interop

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// officialClientPaysByPermit2 lets the official client pay prices that need
// Permit2, with an allowance and without one, and without gas: the balances move
// by exactly what is due, and the receipt is that of the payment.
func officialClientPaysByPermit2(t *testing.T, s *stack, u *upstream, origin string) {
	approved, penniless := s.Payers[4], s.Payers[5] // the second has dollars, and nothing to pay gas with
	for _, token := range []string{s.Token, s.Tether} {
		s.approve(t, token, approved, true)
		s.approve(t, token, penniless, false)
	}
	s.setGas(t, penniless, 0)

	for _, tt := range []struct {
		name, method, path string
		payer              account
		token              string
		price              int64
		amount             string // in the receipt
	}{
		{"exact, approved", http.MethodGet, "/permit2/x", approved, s.Token, 20_000, ""},
		{"plain token, approved", http.MethodGet, "/tether/x", approved, s.Tether, 30_000, ""},
		{"exact, EIP-2612 without gas", http.MethodGet, "/permit2/x", penniless, s.Token, 20_000, ""},
		{"plain token, approval without gas", http.MethodGet, "/tether/x", penniless, s.Tether, 30_000, ""},
		{"upto, all of it", http.MethodPost, "/usage/x", approved, s.Token, 500_000, "500000"},
		{"upto, some", http.MethodPost, "/usage/x?charge=12345", approved, s.Token, 12_345, "12345"},
		{"upto, percent", http.MethodPost, "/usage/x?charge=12.34%25", approved, s.Token, 61_700, "61700"},
		{"upto, nothing", http.MethodPost, "/usage/x?charge=0", approved, s.Token, 0, "0"},
		{"upto, EIP-2612 without gas", http.MethodGet, "/usage/y?charge=$0.1", penniless, s.Token, 100_000, "100000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			had, payeeHad := s.balanceOf(t, tt.token, tt.payer.Address), s.balanceOf(t, tt.token, s.Payee)
			hits := u.hits.Load()
			body := ""
			if tt.method == http.MethodPost {
				body = `{"n":1}`
			}
			got := runClient(t, s, "fetch-permit2.mjs", tt.payer, tt.method, origin+tt.path, body)
			if got.Status != http.StatusOK || got.Requests != 2 {
				t.Fatalf("status %d after %d requests, body %q, receipt %+v", got.Status, got.Requests, got.Body, got.Receipt)
			}
			if want := answer(hits+1, tt.method, tt.path, body); got.Body != want || u.hits.Load() != hits+1 {
				t.Errorf("body %q, want %q", got.Body, want)
			}
			if moved := had - s.balanceOf(t, tt.token, tt.payer.Address); moved != tt.price {
				t.Errorf("the payer paid %d, want %d", moved, tt.price)
			}
			if moved := s.balanceOf(t, tt.token, s.Payee) - payeeHad; moved != tt.price {
				t.Errorf("the payee got %d, want %d", moved, tt.price)
			}
			r := got.Receipt
			if r == nil || !r.Success || r.Amount != tt.amount || !strings.EqualFold(r.Payer, tt.payer.Address) || r.Network != "eip155:84532" {
				t.Fatalf("receipt %+v", r)
			}
			if tt.price == 0 {
				if r.Transaction != "" {
					t.Errorf("transaction %q of nothing", r.Transaction)
				}
				return
			}
			tx := s.receipt(t, r.Transaction)
			if tx == nil || tx.Status != "0x1" || !tx.moves(tt.token, tt.payer.Address, s.Payee, tt.price) {
				t.Errorf("transaction %q is not the payment: %+v", r.Transaction, tx)
			}
		})
	}

	t.Run("no allowance and no node to sign one with", func(t *testing.T) {
		s.approve(t, s.Token, penniless, false)
		s.setGas(t, penniless, 0)
		payeeHad, hits := s.balance(t, s.Payee), u.hits.Load()
		blind := *s
		blind.RPC = ""
		got := runClient(t, &blind, "fetch-permit2.mjs", penniless, http.MethodGet, origin+"/permit2/x", "")
		if got.Status != http.StatusPaymentRequired || got.Requests != 2 {
			t.Errorf("status %d after %d requests, want 402 after 2", got.Status, got.Requests)
		}
		checkNothingMoved(t, s, u, payeeHad, hits)
	})
	t.Run("the upstream charges too much", func(t *testing.T) {
		payeeHad, hits := s.balance(t, s.Payee), u.hits.Load()
		got := runClient(t, s, "fetch-permit2.mjs", approved, http.MethodPost, origin+"/usage/z?charge=500001", `{}`)
		if got.Status != http.StatusBadGateway || u.hits.Load() != hits+1 {
			t.Errorf("status %d after %d runs of the upstream", got.Status, u.hits.Load()-hits)
		}
		if moved := s.balance(t, s.Payee) - payeeHad; moved != 0 {
			t.Errorf("%d moved", moved)
		}
	})
}

// approve lets Permit2 move all of an account's token, or nothing.
func (s *stack) approve(t *testing.T, token string, owner account, all bool) {
	t.Helper()
	s.setGas(t, owner, 1e18)
	amounts := []string{strings.Repeat("0", 64)} // some tokens want the way by zero
	if all {
		amounts = append(amounts, strings.Repeat("f", 64))
	}
	for _, amount := range amounts {
		var hash string
		call := map[string]string{"from": owner.Address, "to": token, "data": "0x095ea7b3" + word(s.Permit2)[2:] + amount}
		if err := s.rpc(&hash, "eth_sendTransaction", call); err != nil {
			t.Fatal(err)
		}
		var r *receipt
		for range 200 { // the chain answers before it has mined
			if r = s.receipt(t, hash); r != nil {
				break
			}
			time.Sleep(25 * time.Millisecond)
		}
		if r == nil || r.Status != "0x1" {
			t.Fatalf("approve: %+v", r)
		}
	}
}

// setGas sets how much of the chain's own coin an account has.
func (s *stack) setGas(t *testing.T, a account, wei int64) {
	t.Helper()
	var done any
	if err := s.rpc(&done, "anvil_setBalance", a.Address, fmt.Sprintf("%#x", wei)); err != nil {
		t.Fatal(err)
	}
}
