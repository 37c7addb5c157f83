package evm

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/holiman/uint256"
	"pgregory.net/rapid"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// oracle encodes and decodes calls as go-ethereum does.
var oracle = must(abi.JSON(strings.NewReader(`[{"type":"function","name":"transferWithAuthorization","inputs":[
	{"name":"from","type":"address"},{"name":"to","type":"address"},{"name":"value","type":"uint256"},
	{"name":"validAfter","type":"uint256"},{"name":"validBefore","type":"uint256"},{"name":"nonce","type":"bytes32"},
	{"name":"v","type":"uint8"},{"name":"r","type":"bytes32"},{"name":"s","type":"bytes32"}]}]`)))

func TestCalldataLikeOracle(t *testing.T) {
	word := rapid.SliceOfN(rapid.Byte(), 32, 32)
	rapid.Check(t, func(t *rapid.T) {
		m := eip712.Transfer{
			From: common.BytesToAddress(word.Draw(t, "from")), To: common.BytesToAddress(word.Draw(t, "to")),
			Value:      *new(uint256.Int).SetBytes(word.Draw(t, "value")),
			ValidAfter: rapid.Uint64().Draw(t, "after"), ValidBefore: rapid.Uint64().Draw(t, "before"),
			Nonce: [32]byte(word.Draw(t, "nonce")),
		}
		s := eip712.Signature{R: [32]byte(word.Draw(t, "r")), S: [32]byte(word.Draw(t, "s")), V: rapid.Byte().Draw(t, "v")}
		want, err := oracle.Pack("transferWithAuthorization", m.From, m.To, m.Value.ToBig(),
			uint256.NewInt(m.ValidAfter).ToBig(), uint256.NewInt(m.ValidBefore).ToBig(), m.Nonce, s.V, s.R, s.S)
		if err != nil {
			t.Fatal(err)
		}
		p := &payment{way: &eip3009{m}, Payment: Payment{token: common.HexToAddress(usdc)}, signature: slices.Concat(s.R[:], s.S[:], []byte{s.V})}
		if to, got := p.encoded(); to != p.token || string(got) != string(want) {
			t.Fatalf("got  %x\nwant %x", got, want)
		}
	})
}

// aSignedPayment is one for receipts to be judged by.
func aSignedPayment() *Payment {
	return &Payment{
		from: common.HexToAddress(payerAddress), to: common.HexToAddress(payee),
		value: *uint256.NewInt(10000), nonce: [32]byte{31: 1}, token: common.HexToAddress(usdc),
	}
}

// aPayment is one for receipts to be judged by.
func aPayment() *payment {
	return &payment{way: &eip3009{}, Payment: *aSignedPayment()}
}

func TestJudge(t *testing.T) {
	p := aSignedPayment()
	hash := common.Hash{1}
	used := event{Address: p.token, Topics: []common.Hash{usedTopic, addressTopic(p.from), p.nonce}}
	value := p.value.Bytes32()
	moved := event{Address: p.token, Topics: []common.Hash{transferTopic, addressTopic(p.from), addressTopic(p.to)}, Data: value[:]}
	with := func(e event, change func(*event)) event {
		e.Topics = append([]common.Hash(nil), e.Topics...)
		e.Data = append(hexutil.Bytes(nil), e.Data...)
		change(&e)
		return e
	}
	elsewhere := func(e *event) { e.Address = common.HexToAddress(payee) }
	removed := func(e *event) { e.Removed = true }
	other := with(moved, func(e *event) { e.Topics[2] = addressTopic(p.from) })
	tests := map[string]struct {
		logs         []event
		own, foreign verdict
	}{
		"used, moved":                  {[]event{used, moved}, paid, paid},
		"between others":               {[]event{other, used, moved, other}, paid, paid},
		"another contract in between":  {[]event{used, with(other, elsewhere), moved}, paid, paid},
		"moved, used":                  {[]event{moved, used}, paid, mismatch},
		"another transfer in between":  {[]event{used, other, moved}, paid, mismatch},
		"another payment's transfer":   {[]event{moved, used, other}, paid, mismatch},
		"nothing":                      {nil, mismatch, mismatch},
		"used only":                    {[]event{used}, mismatch, mismatch},
		"moved only":                   {[]event{moved}, mismatch, mismatch},
		"to somebody else":             {[]event{used, other}, mismatch, mismatch},
		"of somebody else":             {[]event{used, with(moved, func(e *event) { e.Topics[1] = addressTopic(p.to) })}, mismatch, mismatch},
		"less":                         {[]event{used, with(moved, func(e *event) { e.Data[31]-- })}, mismatch, mismatch},
		"value in 33 bytes":            {[]event{used, with(moved, func(e *event) { e.Data = append(hexutil.Bytes{0}, e.Data...) })}, mismatch, mismatch},
		"no value":                     {[]event{used, with(moved, func(e *event) { e.Data = nil })}, mismatch, mismatch},
		"value indexed":                {[]event{used, with(moved, func(e *event) { e.Topics = append(e.Topics, common.Hash(value)) })}, mismatch, mismatch},
		"another nonce":                {[]event{with(used, func(e *event) { e.Topics[2][0]++ }), moved}, mismatch, mismatch},
		"another payer":                {[]event{with(used, func(e *event) { e.Topics[1] = addressTopic(p.to) }), moved}, mismatch, mismatch},
		"cancelled":                    {[]event{with(used, func(e *event) { e.Topics[0] = canceledTopic }), moved}, mismatch, mismatch},
		"forged by another contract":   {[]event{with(used, elsewhere), with(moved, elsewhere)}, mismatch, mismatch},
		"transfer by another contract": {[]event{used, with(moved, elsewhere)}, mismatch, mismatch},
		"use told by another contract": {[]event{with(used, elsewhere), moved}, mismatch, mismatch},
		"removed by a reorganisation":  {[]event{with(used, removed), with(moved, removed)}, mismatch, mismatch},
		"no topics":                    {[]event{used, {Address: p.token}, moved}, paid, mismatch},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			block, status := hexutil.Uint64(5), hexutil.Uint64(1)
			r := &receipt{Transaction: hash, Block: &block, Status: &status, Logs: tt.logs}
			if own, foreign := r.judge(hash, p, oAlone), r.judge(hash, p, oForeign); own != tt.own || foreign != tt.foreign {
				t.Errorf("ours %d, foreign %d; want %d, %d", own, foreign, tt.own, tt.foreign)
			}
			shared := tt.foreign
			if !p.uses(r) {
				shared = failed // the other payments went on without this one
			}
			if got := r.judge(hash, p, oAmong); got != shared {
				t.Errorf("together with others %d; want %d", got, shared)
			}
			if r.judge(common.Hash{2}, p, oAlone) != inconclusive {
				t.Error("the receipt of another transaction counts")
			}
			status = 0
			if r.judge(hash, p, oAlone) != failed {
				t.Error("a reverted transaction counts")
			}
			status = 2
			if r.judge(hash, p, oAlone) != failed {
				t.Error("an unknown status counts")
			}
			for _, r := range []*receipt{nil, {}, {Transaction: hash, Block: &block}, {Transaction: hash, Status: &status}} {
				if r.judge(hash, p, oAlone) != inconclusive {
					t.Errorf("%+v is conclusive", r)
				}
			}
		})
	}
}

// FuzzReceipt: no receipt of a node makes us panic, and none proves a payment
// without both events of the token.
func FuzzReceipt(f *testing.F) {
	p := aSignedPayment()
	value := p.value.Bytes32()
	good := fmt.Sprintf(`{"transactionHash":%q,"blockNumber":"0x1","status":"0x1","logs":[
		{"address":%q,"topics":[%q,%q,%q],"data":"0x"},{"address":%q,"topics":[%q,%q,%q],"data":%q}]}`,
		common.Hash{1}.Hex(), p.token.Hex(), usedTopic.Hex(), addressTopic(p.from).Hex(), common.Hash(p.nonce).Hex(),
		p.token.Hex(), transferTopic.Hex(), addressTopic(p.from).Hex(), addressTopic(p.to).Hex(), hexutil.Encode(value[:]))
	f.Add([]byte(good))
	f.Add([]byte(strings.ReplaceAll(good, `"0x1"`, `null`)))
	f.Add([]byte(strings.ReplaceAll(good, `"topics":[`, `"topics":[],"x":[`)))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"logs":null,"status":"0x1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r *receipt
		if json.Unmarshal(b, &r) != nil {
			return
		}
		own, foreign := r.judge(common.Hash{1}, p, oAlone), r.judge(common.Hash{1}, p, oForeign)
		if foreign == paid && own != paid {
			t.Error("strictness depends on who sent it the wrong way round")
		}
		if own != paid {
			return
		}
		text := strings.ToLower(string(b))
		for _, part := range []common.Hash{usedTopic, transferTopic, addressTopic(p.from), addressTopic(p.to), common.Hash(value)} {
			if !strings.Contains(text, part.Hex()[2:]) && !strings.Contains(text, `\u`) {
				t.Errorf("paid without %s", part)
			}
		}
	})
}

// FuzzDiagnosis: whatever a node returns for tryAggregate, we neither panic nor
// take it for more than it is.
func FuzzDiagnosis(f *testing.F) {
	node := &scripted{t: f}
	list := aPayment().questions(aPayment())
	f.Add([]byte(node.tryAggregate(pack("tryAggregate", false, list))))
	f.Add([]byte{})
	f.Add(make([]byte, 64))
	r, _ := good(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		results, err := readResults(b, len(list))
		if err != nil {
			return
		}
		if code := aPayment().reason(aPayment(), r.Requirement, results); code == "" {
			t.Error("no reason")
		}
	})
}

// FuzzCleanText: what reaches the log is one bounded line without secrets.
func FuzzCleanText(f *testing.F) {
	f.Add("execution reverted: 0x" + strings.Repeat("ab", 300))
	f.Add("a\nb\x00\xff" + secret)
	f.Fuzz(func(t *testing.T, s string) {
		out := cleanText(s, []string{secret})
		if len(out) > maxLogText+len("…") || strings.ContainsAny(out, "\n\r\x00") || strings.Contains(out, secret) {
			t.Errorf("%q", out)
		}
	})
}

// FuzzSponsoring: whatever a payer writes into the extensions, we do not panic, and
// an approval that is taken does nothing but approve.
func FuzzSponsoring(f *testing.F) {
	r, unix := good(f)
	for _, e := range []map[string]any{sponsorApproval(nil, nil), {eip2612Extension: map[string]any{"info": map[string]any{
		"from": payerAddress, "asset": usdc, "spender": eip712.Permit2.Hex(), "amount": "10000", "nonce": "0",
		"deadline": fmt.Sprint(unix + 300), "signature": "0x" + strings.Repeat("12", 64) + "1b", "version": "1",
	}}}} {
		f.Add(must(json.Marshal(e)))
	}
	f.Add([]byte(`{"erc20ApprovalGasSponsoring":{"info":{"signedTransaction":"0x02c0"}}}`))
	f.Add([]byte(`{"eip2612GasSponsoring":null,"erc20ApprovalGasSponsoring":[]}`))
	c := &settler{Chain: &Chain{id: 84532}, approvalBudget: common.Big1}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, asset := range []common.Address{token, tether} {
			p := aPayment()
			p.token, p.authorization.Value = asset, p.value
			p.permit = &eip712.Permit{Amount: p.value}
			p.way = &permit2{permit: *p.permit}
			payment := *r.Payment
			payment.Extensions = b
			if c.readExtensions(p, facilitator.Request{Payment: &payment}, time.Unix(unix, 0)) != nil {
				continue
			}
			if a := p.approval; a != nil && (*a.tx.To() != p.token || len(a.tx.Data()) != 68 || a.tx.Value().Sign() != 0) {
				t.Errorf("%+v", a.tx)
			}
			if a := p.way.(*permit2).allowance; a != nil && !a.value.Eq(&p.value) {
				t.Errorf("%+v", a)
			}
		}
	})
}

// FuzzSignature: no signature makes us panic, and only that of the payer's key is
// one without the chain.
func FuzzSignature(f *testing.F) {
	r, _ := good(f)
	a := must(r.Payment.Authorization(r.Requirement))
	f.Add(a.Signature)
	f.Add(wrap6492(factory, []byte{1, 2})(a.Signature))
	f.Add(append(make([]byte, 96), magic6492...))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := a
		a.Signature = b
		p, err := decode(a, r.Requirement)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.readSignature(); err != nil {
			return
		}
		signer, err := eip712.Recover(p.digest, b)
		if (p.signer == byKey) != (err == nil && signer == p.from) {
			t.Errorf("signer %d, %s", p.signer, signer)
		}
		for p.signer = range byFactory + 1 {
			if p.signer == byFactory && p.factory == nil {
				continue
			}
			p.calldata = nil
			if to, data := p.encoded(); len(data) < 4 || to == (common.Address{}) {
				t.Errorf("no call: %x", data)
			}
		}
	})
}
