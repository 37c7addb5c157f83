package devchain

import (
	"bytes"
	"math/big"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/signer/core/apitypes"

	"github.com/caddy-paywall/caddy-paywall/internal/typeddata"
)

func TestPaymentByAccount(t *testing.T) {
	w := newWorld(t, Options{})
	gas, payer := w.Accounts()[0], w.Accounts()[1]
	forms := map[string]func(authorization, *world) []byte{
		"v, r, s": authorization.split,
		"bytes":   authorization.whole,
	}
	paid := int64(0)
	for name, form := range forms {
		a := w.authorize(payer.Address, payer)
		data := form(a, w)
		receipt := w.do(gas, Dollar, data)
		paid += 10_000
		w.hasEvents(name, receipt, a)
		if got := w.balance(a.to); got != paid {
			t.Errorf("%s: the seller has %d, want %d", name, got, paid)
		}
		if got := w.balance(payer.Address); got != dollarsEach-paid {
			t.Errorf("%s: the payer has %d", name, got)
		}
		// In either form the same authorization buys once.
		w.refused(a.split(w), "FiatTokenV2: authorization is used or canceled")
		w.refused(a.whole(w), "FiatTokenV2: authorization is used or canceled")
		if r := w.mined(w.send(gas, &Dollar, data)); r.Status == types.ReceiptStatusSuccessful || len(r.Logs) > 0 {
			t.Errorf("%s: settled twice", name)
		}
	}
}

// A contract account pays with the signature that it accepts.
func TestPaymentByContract(t *testing.T) {
	w := newWorld(t, Options{})
	gas, owner := w.Accounts()[0], w.Accounts()[2]
	wallet := w.deploy("TestWallet", owner.Address)
	if err := w.Mint(soon(t), wallet, big.NewInt(50_000)); err != nil {
		t.Fatal(err)
	}
	a := w.authorize(wallet, owner)
	w.hasEvents("wallet", w.do(gas, Dollar, a.whole(w)), a)
	if got := w.balance(wallet); got != 40_000 {
		t.Errorf("the wallet has %d", got)
	}
	w.refused(w.authorize(wallet, w.Accounts()[3]).whole(w), "FiatTokenV2: invalid signature")
}

func (w *world) hasEvents(name string, r *types.Receipt, a authorization) {
	w.t.Helper()
	if len(r.Logs) != 2 {
		w.t.Fatalf("%s: %d events", name, len(r.Logs))
	}
	used, transfer := r.Logs[0], r.Logs[1]
	if used.Address != Dollar || used.Topics[0] != crypto.Keccak256Hash([]byte("AuthorizationUsed(address,bytes32)")) ||
		common.BytesToAddress(used.Topics[1][:]) != a.from || used.Topics[2] != a.nonce {
		w.t.Errorf("%s: AuthorizationUsed is %+v", name, used)
	}
	if transfer.Address != Dollar || transfer.Topics[0] != crypto.Keccak256Hash([]byte("Transfer(address,address,uint256)")) ||
		common.BytesToAddress(transfer.Topics[1][:]) != a.from || common.BytesToAddress(transfer.Topics[2][:]) != a.to ||
		!bytes.Equal(transfer.Data, common.LeftPadBytes(a.value.Bytes(), 32)) {
		w.t.Errorf("%s: Transfer is %+v", name, transfer)
	}
}

func TestRefusedPayments(t *testing.T) {
	w := newWorld(t, Options{})
	payer := w.Accounts()[1]
	late := w.authorize(payer.Address, payer)
	late.validBefore = big.NewInt(time.Now().Unix() - 60)
	w.refused(late.split(w), "FiatTokenV2: authorization is expired")
	early := w.authorize(payer.Address, payer)
	early.validAfter = big.NewInt(time.Now().Unix() + 60)
	w.refused(early.split(w), "FiatTokenV2: authorization is not yet valid")
	w.refused(w.authorize(payer.Address, w.Accounts()[2]).split(w), "FiatTokenV2: invalid signature")
	// The gas account has no test dollars.
	w.refused(w.authorize(w.Accounts()[0].Address, w.Accounts()[0]).split(w), "ERC20: transfer amount exceeds balance")
}

func TestPauseAndBlacklist(t *testing.T) {
	w := newWorld(t, Options{})
	payer := w.Accounts()[1]
	a := w.authorize(payer.Address, payer)
	steps := []struct {
		name   string
		do     func() error
		refuse string // "": the payment would settle
	}{
		{"before", func() error { return nil }, ""},
		{"paused", func() error { return w.Pause(soon(t)) }, "Pausable: paused"},
		{"unpaused", func() error { return w.Unpause(soon(t)) }, ""},
		{"payer blacklisted", func() error { return w.Blacklist(soon(t), payer.Address) }, "Blacklistable: account is blacklisted"},
		{"payer cleared", func() error { return w.Unblacklist(soon(t), payer.Address) }, ""},
		{"seller blacklisted", func() error { return w.Blacklist(soon(t), a.to) }, "Blacklistable: account is blacklisted"},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatal(step.name, err)
		}
		if step.refuse != "" {
			w.refused(a.split(w), step.refuse)
		} else if err := w.call(payer.Address, Dollar, a.split(w)); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
	}
	if err := w.Mint(soon(t), a.to, big.NewInt(1)); err == nil {
		t.Error("a reverted transaction of the owner is no error")
	}
}

// EIP-2612: an allowance by signature.
func TestPermit(t *testing.T) {
	w := newWorld(t, Options{})
	payer := w.Accounts()[1]
	permit := w.permit(payer, 10_000)
	w.do(w.Accounts()[0], Dollar, w.pack(permitSplit, payer.Address, Permit2, permit.Value, permit.Deadline, permit.V, permit.R, permit.S))
	w.do(payer, Dollar, w.pack("approve", Permit2, new(big.Int)))
}

// permit2612 is the first argument of settleWithPermit.
type permit2612 struct {
	Value, Deadline *big.Int
	R, S            [32]byte
	V               uint8
}

// permit signs an allowance for Permit2, the first of the account.
func (w *world) permit(owner Account, value int64) permit2612 {
	deadline := time.Now().Unix() + 300
	s := w.sign(owner, typeddata.Permit(dollarDomain, apitypes.TypedDataMessage{
		"owner": owner.Address.Hex(), "spender": Permit2.Hex(), "value": big.NewInt(value).String(),
		"nonce": "0", "deadline": big.NewInt(deadline).String(),
	}))
	return permit2612{
		Value: big.NewInt(value), Deadline: big.NewInt(deadline),
		R: [32]byte(s[:32]), S: [32]byte(s[32:64]), V: s[64],
	}
}
