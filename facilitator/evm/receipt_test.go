package evm

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/holiman/uint256"
)

// aSignedPayment is one for receipts to be judged by.
func aSignedPayment() *Payment {
	return &Payment{
		from: common.HexToAddress(payerAddress), to: common.HexToAddress(payee),
		value: *uint256.NewInt(10000), nonce: [32]byte{31: 1}, token: common.HexToAddress(usdc),
	}
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
