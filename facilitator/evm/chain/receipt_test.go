package chain

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/holiman/uint256"
)

// aPayment is one for receipts to be judged by.
func aPayment() *Payment {
	return &Payment{
		From: common.HexToAddress("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"), To: common.HexToAddress("0x209693Bc6afc0C5328bA36FaF03C514EF312287C"),
		Value: *uint256.NewInt(10000), Nonce: [32]byte{31: 1}, Token: common.HexToAddress(usdc),
	}
}

func TestJudge(t *testing.T) {
	p := aPayment()
	hash := common.Hash{1}
	used := Event{Address: p.Token, Topics: []common.Hash{usedTopic, AddressTopic(p.From), p.Nonce}}
	value := p.Value.Bytes32()
	moved := Event{Address: p.Token, Topics: []common.Hash{transferTopic, AddressTopic(p.From), AddressTopic(p.To)}, Data: value[:]}
	with := func(e Event, change func(*Event)) Event {
		e.Topics = append([]common.Hash(nil), e.Topics...)
		e.Data = append(hexutil.Bytes(nil), e.Data...)
		change(&e)
		return e
	}
	elsewhere := func(e *Event) { e.Address = common.HexToAddress("0x209693Bc6afc0C5328bA36FaF03C514EF312287C") }
	removed := func(e *Event) { e.Removed = true }
	other := with(moved, func(e *Event) { e.Topics[2] = AddressTopic(p.From) })
	tests := map[string]struct {
		logs         []Event
		own, foreign Verdict
	}{
		"used, moved":                  {[]Event{used, moved}, Paid, Paid},
		"between others":               {[]Event{other, used, moved, other}, Paid, Paid},
		"another contract in between":  {[]Event{used, with(other, elsewhere), moved}, Paid, Paid},
		"moved, used":                  {[]Event{moved, used}, Paid, Mismatch},
		"another transfer in between":  {[]Event{used, other, moved}, Paid, Mismatch},
		"another payment's transfer":   {[]Event{moved, used, other}, Paid, Mismatch},
		"nothing":                      {nil, Mismatch, Mismatch},
		"used only":                    {[]Event{used}, Mismatch, Mismatch},
		"moved only":                   {[]Event{moved}, Mismatch, Mismatch},
		"to somebody else":             {[]Event{used, other}, Mismatch, Mismatch},
		"of somebody else":             {[]Event{used, with(moved, func(e *Event) { e.Topics[1] = AddressTopic(p.To) })}, Mismatch, Mismatch},
		"less":                         {[]Event{used, with(moved, func(e *Event) { e.Data[31]-- })}, Mismatch, Mismatch},
		"value in 33 bytes":            {[]Event{used, with(moved, func(e *Event) { e.Data = append(hexutil.Bytes{0}, e.Data...) })}, Mismatch, Mismatch},
		"no value":                     {[]Event{used, with(moved, func(e *Event) { e.Data = nil })}, Mismatch, Mismatch},
		"value indexed":                {[]Event{used, with(moved, func(e *Event) { e.Topics = append(e.Topics, common.Hash(value)) })}, Mismatch, Mismatch},
		"another nonce":                {[]Event{with(used, func(e *Event) { e.Topics[2][0]++ }), moved}, Mismatch, Mismatch},
		"another payer":                {[]Event{with(used, func(e *Event) { e.Topics[1] = AddressTopic(p.To) }), moved}, Mismatch, Mismatch},
		"cancelled":                    {[]Event{with(used, func(e *Event) { e.Topics[0] = canceledTopic }), moved}, Mismatch, Mismatch},
		"forged by another contract":   {[]Event{with(used, elsewhere), with(moved, elsewhere)}, Mismatch, Mismatch},
		"transfer by another contract": {[]Event{used, with(moved, elsewhere)}, Mismatch, Mismatch},
		"use told by another contract": {[]Event{with(used, elsewhere), moved}, Mismatch, Mismatch},
		"removed by a reorganisation":  {[]Event{with(used, removed), with(moved, removed)}, Mismatch, Mismatch},
		"no topics":                    {[]Event{used, {Address: p.Token}, moved}, Paid, Mismatch},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			block, status := hexutil.Uint64(5), hexutil.Uint64(1)
			r := &Receipt{Transaction: hash, Block: &block, Status: &status, Logs: tt.logs}
			if own, foreign := r.Judge(hash, p, Alone), r.Judge(hash, p, Foreign); own != tt.own || foreign != tt.foreign {
				t.Errorf("ours %d, foreign %d; want %d, %d", own, foreign, tt.own, tt.foreign)
			}
			shared := tt.foreign
			if !p.uses(r) {
				shared = Failed // the other payments went on without this one
			}
			if got := r.Judge(hash, p, Among); got != shared {
				t.Errorf("together with others %d; want %d", got, shared)
			}
			if r.Judge(common.Hash{2}, p, Alone) != Inconclusive {
				t.Error("the receipt of another transaction counts")
			}
			status = 0
			if r.Judge(hash, p, Alone) != Failed {
				t.Error("a reverted transaction counts")
			}
			status = 2
			if r.Judge(hash, p, Alone) != Failed {
				t.Error("an unknown status counts")
			}
			for _, r := range []*Receipt{nil, {}, {Transaction: hash, Block: &block}, {Transaction: hash, Status: &status}} {
				if r.Judge(hash, p, Alone) != Inconclusive {
					t.Errorf("%+v is conclusive", r)
				}
			}
		})
	}
}

// FuzzReceipt: no receipt of a node makes us panic, and none proves a payment
// without both events of the token.
func FuzzReceipt(f *testing.F) {
	p := aPayment()
	value := p.Value.Bytes32()
	good := fmt.Sprintf(`{"transactionHash":%q,"blockNumber":"0x1","status":"0x1","logs":[
		{"address":%q,"topics":[%q,%q,%q],"data":"0x"},{"address":%q,"topics":[%q,%q,%q],"data":%q}]}`,
		common.Hash{1}.Hex(), p.Token.Hex(), usedTopic.Hex(), AddressTopic(p.From).Hex(), common.Hash(p.Nonce).Hex(),
		p.Token.Hex(), transferTopic.Hex(), AddressTopic(p.From).Hex(), AddressTopic(p.To).Hex(), hexutil.Encode(value[:]))
	f.Add([]byte(good))
	f.Add([]byte(strings.ReplaceAll(good, `"0x1"`, `null`)))
	f.Add([]byte(strings.ReplaceAll(good, `"topics":[`, `"topics":[],"x":[`)))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"logs":null,"status":"0x1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r *Receipt
		if json.Unmarshal(b, &r) != nil {
			return
		}
		own, foreign := r.Judge(common.Hash{1}, p, Alone), r.Judge(common.Hash{1}, p, Foreign)
		if foreign == Paid && own != Paid {
			t.Error("strictness depends on who sent it the wrong way round")
		}
		if own != Paid {
			return
		}
		text := strings.ToLower(string(b))
		for _, part := range []common.Hash{usedTopic, transferTopic, AddressTopic(p.From), AddressTopic(p.To), common.Hash(value)} {
			if !strings.Contains(text, part.Hex()[2:]) && !strings.Contains(text, `\u`) {
				t.Errorf("paid without %s", part)
			}
		}
	})
}
