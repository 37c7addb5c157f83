package devchain

import (
	"bytes"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// The contracts are those that the tests with the official software use. When this
// fails, run contracts/build.mjs.
func TestContractsAreThoseOfInterop(t *testing.T) {
	code, err := contractCode()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"TestDollar", "TestTether", "Multicall3"} {
		if !bytes.Equal(code[name], artifact(t, name).DeployedBytecode) {
			t.Errorf("%s is another one", name)
		}
	}
	for _, name := range []string{"TestDollar", "TestTether"} {
		want := map[string]int64{"owner": slotOwner, "totalSupply": slotTotalSupply, "balanceOf": slotBalanceOf}
		for _, s := range artifact(t, name).StorageLayout {
			if slot, used := want[s.Label]; used && slot != s.Slot {
				t.Errorf("%s: %s is in slot %d", name, s.Label, s.Slot)
			}
			delete(want, s.Label)
		}
		if len(want) > 0 {
			t.Errorf("%s: not in the storage: %v", name, want)
		}
	}
}

func TestMulticall(t *testing.T) {
	w := newWorld(t, Options{})
	multicall := artifact(t, "Multicall3").ABI
	type one struct {
		Target   common.Address
		CallData []byte
	}
	data, err := multicall.Pack("tryAggregate", false, []one{
		{Dollar, w.pack("decimals")},
		{Dollar, w.pack("transfer", Permit2, big.NewInt(1))}, // nobody's money: fails
		{Dollar, w.pack("name")},
	})
	if err != nil {
		t.Fatal(err)
	}
	tx := w.do(w.Accounts()[0], Multicall3, data)
	if len(tx.Logs) != 0 {
		t.Errorf("%d events", len(tx.Logs))
	}
}

// vector is a payment that an official client signed.
type vector struct {
	Name           string
	PaymentPayload struct {
		Payload struct {
			Signature     string
			Authorization struct{ From, To, Value, ValidAfter, ValidBefore, Nonce string }
		}
		Accepted struct{ Asset, Network, PayTo string }
	}
	SettleCalldata struct{ To, Data, Amount string }
}

type vectors struct {
	ClockUnixSeconds int64
	Vectors          []vector
}

// at is a clock that runs from another time on.
func at(unix int64) func() time.Time {
	skew := time.Until(time.Unix(unix, 0))
	return func() time.Time { return time.Now().Add(skew) }
}

const vectorPayTo = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"

// What the official clients sign settles here, by the calldata that the official
// facilitator makes of it.
func TestOfficialPayments(t *testing.T) {
	t.Run("exact, EIP-3009", func(t *testing.T) {
		v := readJSON[vectors](t, "../x402/testdata/exact-evm-eip3009.json")
		w := vectorWorld(t, v)
		settled := 0
		for _, one := range v.Vectors {
			a, accepted := one.PaymentPayload.Payload.Authorization, one.PaymentPayload.Accepted
			if common.HexToAddress(accepted.Asset) != Dollar || accepted.Network != "eip155:84532" || a.From == "" {
				continue
			}
			number := func(s string) *big.Int { n, _ := new(big.Int).SetString(s, 10); return n }
			data := w.pack(transferWhole, common.HexToAddress(a.From), common.HexToAddress(a.To), number(a.Value),
				number(a.ValidAfter), number(a.ValidBefore), common.HexToHash(a.Nonce), unhex(t, one.PaymentPayload.Payload.Signature))
			if err := w.call(w.Accounts()[2].Address, Dollar, data); err != nil {
				t.Errorf("%s: %v", one.Name, err)
				continue
			}
			settled++
		}
		if settled == 0 {
			t.Error("no vector was for this chain")
		}
	})
	t.Run("exact, Permit2", func(t *testing.T) {
		v := readJSON[vectors](t, "../x402/testdata/exact-evm-permit2.json")
		w := vectorWorld(t, v)
		w.settlesOnce(w.Accounts()[2], v.Vectors[0], 10_000)
	})
	t.Run("upto, Permit2", func(t *testing.T) {
		v := readJSON[vectors](t, "../x402/testdata/upto-evm-permit2.json")
		w := vectorWorld(t, v)
		one := v.Vectors[0]
		// The payer named a facilitator, and it is not this one.
		to, data := common.HexToAddress(one.SettleCalldata.To), unhex(t, one.SettleCalldata.Data)
		w.reverts(w.Accounts()[2], to, data, "UnauthorizedFacilitator()")
		w.settlesOnce(w.Accounts()[1], one, 123_456)
	})
}

// vectorWorld is a chain at the time of the vectors, whose payer has money and
// lets Permit2 move it.
func vectorWorld(t *testing.T, v vectors) *world {
	w := newWorld(t, Options{Now: at(v.ClockUnixSeconds)})
	payer := w.Accounts()[0]
	if err := w.Mint(soon(t), payer.Address, big.NewInt(10_000_000)); err != nil {
		t.Fatal(err)
	}
	w.do(payer, Dollar, w.pack("approve", Permit2, big.NewInt(10_000_000)))
	return w
}

func (w *world) settlesOnce(from Account, one vector, want int64) {
	w.t.Helper()
	to, data := common.HexToAddress(one.SettleCalldata.To), unhex(w.t, one.SettleCalldata.Data)
	w.do(from, to, data)
	if got := w.balance(common.HexToAddress(vectorPayTo)); got != want {
		w.t.Errorf("the seller has %d, want %d", got, want)
	}
	w.reverts(from, to, data, "InvalidNonce()")
	// A byte of the signature changed: it lies one word before the end of the data.
	bent := bytes.Clone(data)
	bent[len(bent)-64-32]++
	w.reverts(from, to, bent, "InvalidNonce()") // the nonce is looked at first
}

// reverts wants a call to fail with an error of a contract.
func (w *world) reverts(from Account, to common.Address, data []byte, want string) {
	w.t.Helper()
	selector := fmt.Sprintf("0x%x", crypto.Keccak256([]byte(want))[:4])
	err := w.call(from.Address, to, data)
	coded, ok := err.(interface{ ErrorData() any })
	if !ok {
		w.t.Errorf("got %v, want %s", err, want)
	} else if got, _ := coded.ErrorData().(string); !strings.HasPrefix(got, selector) {
		w.t.Errorf("got %v (%v), want %s", coded.ErrorData(), err, want)
	}
}

// permit2Payment is a payment through the proxy of the scheme exact.
type permit2Payment struct {
	Permit struct {
		Permitted struct {
			Token  common.Address
			Amount *big.Int
		}
		Nonce    *big.Int
		Deadline *big.Int
	}
	Owner   common.Address
	Witness struct {
		To         common.Address
		ValidAfter *big.Int
	}
	Signature []byte
}

const proxyABI = `[
	{"type":"function","name":"settle","inputs":[` + permitABI + `]},
	{"type":"function","name":"settleWithPermit","inputs":[{"name":"permit2612","type":"tuple","components":[
		{"name":"value","type":"uint256"},{"name":"deadline","type":"uint256"},{"name":"r","type":"bytes32"},{"name":"s","type":"bytes32"},{"name":"v","type":"uint8"}]},` + permitABI + `]}
]`

const permitABI = `
	{"name":"permit","type":"tuple","components":[
		{"name":"permitted","type":"tuple","components":[{"name":"token","type":"address"},{"name":"amount","type":"uint256"}]},
		{"name":"nonce","type":"uint256"},{"name":"deadline","type":"uint256"}]},
	{"name":"owner","type":"address"},
	{"name":"witness","type":"tuple","components":[{"name":"to","type":"address"},{"name":"validAfter","type":"uint256"}]},
	{"name":"signature","type":"bytes"}`

// permit2Payment signs a payment, hashed here by hand: the vectors above hold the
// contract to the official encoding, and this to the contract.
func (w *world) permit2Payment(owner Account, amount int64) permit2Payment {
	var p permit2Payment
	p.Permit.Permitted.Token, p.Permit.Permitted.Amount = Dollar, big.NewInt(amount)
	p.Permit.Nonce, p.Permit.Deadline = big.NewInt(257), big.NewInt(time.Now().Unix()+300)
	p.Owner = owner.Address
	p.Witness.To, p.Witness.ValidAfter = common.HexToAddress(vectorPayTo), new(big.Int)
	const (
		tokenType   = "TokenPermissions(address token,uint256 amount)"
		witnessType = "Witness(address to,uint256 validAfter)"
	)
	hash := func(typ string, words ...[]byte) []byte {
		data := crypto.Keccak256([]byte(typ))
		for _, word := range words {
			data = append(data, common.LeftPadBytes(word, 32)...)
		}
		return crypto.Keccak256(data)
	}
	domain := hash("EIP712Domain(string name,uint256 chainId,address verifyingContract)",
		crypto.Keccak256([]byte("Permit2")), big.NewInt(ChainID).Bytes(), Permit2[:])
	message := hash("PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,Witness witness)"+tokenType+witnessType,
		hash(tokenType, Dollar[:], p.Permit.Permitted.Amount.Bytes()), ExactPermit2Proxy[:], p.Permit.Nonce.Bytes(), p.Permit.Deadline.Bytes(),
		hash(witnessType, p.Witness.To[:], nil))
	signature, err := crypto.Sign(crypto.Keccak256([]byte("\x19\x01"), domain, message), owner.Key())
	if err != nil {
		w.t.Fatal(err)
	}
	signature[64] += 27
	p.Signature = signature
	return p
}

// A payer without ether pays through Permit2: the allowance comes with the payment.
func TestPermit2WithPermit(t *testing.T) {
	w := newWorld(t, Options{})
	proxy, err := abi.JSON(strings.NewReader(proxyABI))
	if err != nil {
		t.Fatal(err)
	}
	gas, payer := w.Accounts()[0], w.Accounts()[1]
	p := w.permit2Payment(payer, 20_000)
	pack := func(method string, args ...any) []byte {
		t.Helper()
		data, err := proxy.Pack(method, args...)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	settle := func() []byte { return pack("settle", p.Permit, p.Owner, p.Witness, p.Signature) }

	if err := w.call(gas.Address, ExactPermit2Proxy, settle()); err == nil || !strings.Contains(err.Error(), "TRANSFER_FROM_FAILED") {
		t.Errorf("without an allowance: %v", err)
	}
	w.reverts(gas, ExactPermit2Proxy, pack("settleWithPermit", w.permit(payer, 1), p.Permit, p.Owner, p.Witness, p.Signature), "Permit2612AmountMismatch()")
	w.do(gas, ExactPermit2Proxy, pack("settleWithPermit", w.permit(payer, 20_000), p.Permit, p.Owner, p.Witness, p.Signature))
	if got := w.balance(p.Witness.To); got != 20_000 {
		t.Errorf("the seller has %d", got)
	}

	no := w.deploy("TestWallet", payer.Address)
	for want, change := range map[string]func(){
		"InvalidNonce()":            func() {},
		"SignatureExpired(uint256)": func() { p.Permit.Deadline = big.NewInt(time.Now().Unix() - 60) },
		"InvalidSigner()":           func() { p.Permit.Nonce = big.NewInt(258) },
		"PaymentTooEarly()":         func() { p.Witness.ValidAfter = big.NewInt(time.Now().Unix() + 600) },
		"InvalidDestination()":      func() { p.Witness.To = common.Address{} },
		"InvalidOwner()":            func() { p.Owner = common.Address{} },
		"InvalidAmount()":           func() { p.Permit.Permitted.Amount = new(big.Int) },
		"InvalidSignatureLength()":  func() { p.Permit.Nonce, p.Signature = big.NewInt(259), []byte{1} },
		"InvalidContractSignature()": func() {
			p.Owner, p.Permit.Nonce = no, big.NewInt(260)
		},
	} {
		kept := p
		change()
		w.reverts(gas, ExactPermit2Proxy, settle(), want)
		p = kept
	}
}

// What a wallet reverts with is what the payment reverts with, as with the Permit2 of
// real chains, so that who reads the words of a node meets a payer's words here, too.
func TestWalletSpeaksForItself(t *testing.T) {
	w := newWorld(t, Options{})
	proxy, err := abi.JSON(strings.NewReader(proxyABI))
	if err != nil {
		t.Fatal(err)
	}
	const words = "WalletIsAsleep()"
	reverts := append([]byte{0x63}, crypto.Keccak256([]byte(words))[:4]...)      // PUSH4
	reverts = append(reverts, 0x60, 0xe0, 0x1b, 0x5f, 0x52, 0x60, 4, 0x5f, 0xfd) // SHL MSTORE REVERT
	creation := []byte{0x60, byte(len(reverts)), 0x80, 0x60, 9, 0x5f, 0x39, 0x5f, 0xf3}
	gas := w.Accounts()[0]
	wallet := w.mined(w.send(gas, nil, append(creation, reverts...))).ContractAddress
	p := w.permit2Payment(w.Accounts()[1], 20_000)
	p.Owner = wallet
	data, err := proxy.Pack("settle", p.Permit, p.Owner, p.Witness, p.Signature)
	if err != nil {
		t.Fatal(err)
	}
	w.reverts(gas, ExactPermit2Proxy, data, words)
}
