package paywall

import (
	"encoding/json"
	"math/big"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// TestPricesBelowWhatAFacilitatorSettles: the least that a facilitator is known to settle is
// compared with the prices that go through it.
func TestPricesBelowWhatAFacilitatorSettles(t *testing.T) {
	const cdp = `{"type":"remote","url":"https://API.cdp.coinbase.com/platform/v2/x402","rpc":{"base":["https://rpc.example"]}}`
	for name, c := range map[string]struct {
		facilitator string
		micros      []int64
		want        int64 // prices in the one line; 0 is no line
	}{
		"below":     {cdp, []int64{999, 1000, 10, 50_000}, 2},
		"at least":  {cdp, []int64{1000}, 0},
		"elsewhere": {`{"type":"remote","url":"https://facilitator.example","rpc":{"base":["https://rpc.example"]}}`, []int64{1}, 0},
		"embedded":  {`{"type":"evm"}`, []int64{1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zapcore.WarnLevel)
			a := &App{logger: zap.New(core), FacilitatorsRaw: map[string]json.RawMessage{"f": json.RawMessage(c.facilitator)}}
			a.warnAboutConfig()
			for _, micros := range c.micros {
				a.notes.note("price /x", big.NewInt(micros), []string{"f"})
			}
			a.warnAboutLimits()
			var got int64
			for _, line := range logs.All() {
				got += line.ContextMap()["prices"].(int64)
				if line.ContextMap()["facilitator"] != "f" {
					t.Errorf("%v", line)
				}
			}
			if got != c.want || logs.Len() > 1 {
				t.Errorf("%v", logs.All())
			}
		})
	}
}
