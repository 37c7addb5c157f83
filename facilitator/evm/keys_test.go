package evm

import (
	"context"
	"encoding/json"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

var first, second = common.HexToAddress(signerAddress), common.HexToAddress(secondAddress)

// withTwo makes a scripted node, and a facilitator with two keys that asks it. The
// first has more coin.
func withTwo(t testing.TB) (*Facilitator, *scripted, *observer.ObservedLogs) {
	t.Helper()
	c := newClock(1e9)
	node := script(t, c, world{})
	node.balances[first], node.balances[second] = big.NewInt(2e18), big.NewInt(1e18)
	f, logs := start(t, baseSepolia, &Network{RPC: []string{node.URL}, Signers: []string{keyFile(t, signerKey), keyFile(t, secondKey)}}, c)
	if _, err := f.Supported(context.Background()); err != nil {
		t.Fatal(err)
	}
	return f, node, logs
}

// pay settles a payment on a scripted node, and returns who sent it.
func (s *scripted) pay(f *Facilitator, nonce byte) (facilitator.Settlement, common.Address) {
	s.t.Helper()
	before := len(s.sent)
	settlement := f.Settle(context.Background(), order{nonce: nonce}.sign(s.t, s.clock.now().Unix()))
	switch len(s.sent) - before {
	case 0:
		return settlement, common.Address{}
	case 1:
		return settlement, sentBy(s.sent[before])
	}
	s.t.Fatalf("%d were sent: %+v", len(s.sent)-before, settlement)
	return settlement, common.Address{}
}

// TestEmptyAccountIsPassedOver: an account without gas is passed over while
// another has some, and comes back when it is filled up.
func TestEmptyAccountIsPassedOver(t *testing.T) {
	f, node, logs := withTwo(t)
	node.balances[first] = big.NewInt(1)
	if s, by := node.pay(f, 1); s.Outcome != facilitator.Settled || by != second {
		t.Fatalf("%+v by %s", s, by)
	}
	said := logs.FilterMessageSnippet("passed over").All()
	if len(said) != 1 || said[0].Level != zapcore.WarnLevel || said[0].ContextMap()["account"] != signerAddress {
		t.Errorf("log: %s", logged(logs))
	}
	// Who comes next does not ask again.
	looks := node.count("eth_getBalance")
	if s, by := node.pay(f, 2); s.Outcome != facilitator.Settled || by != second || node.count("eth_getBalance") != looks+1 {
		t.Errorf("%+v by %s, %d looks", s, by, node.count("eth_getBalance")-looks)
	}
	node.balances[first] = big.NewInt(3e18)
	_ = node.clock.sleep(context.Background(), setAsideFor)
	if s, by := node.pay(f, 3); s.Outcome != facilitator.Settled || by != first {
		t.Errorf("filled up: %+v by %s", s, by)
	}
	// A reload asks at once.
	node.balances[first] = big.NewInt(1)
	if s, by := node.pay(f, 4); s.Outcome != facilitator.Settled || by != second {
		t.Errorf("%+v by %s", s, by)
	}
	node.balances[first] = big.NewInt(3e18)
	if _, err := f.Supported(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s, by := node.pay(f, 5); s.Outcome != facilitator.Settled || by != first {
		t.Errorf("filled up, after a reload: %+v by %s", s, by)
	}
}

// TestAccountThatCannotSend: what a node has against one account is no reason to
// refuse the payment. It is sent once.
func TestAccountThatCannotSend(t *testing.T) {
	for _, says := range []string{
		"insufficient funds for gas * price + value: balance 1", "nonce too low: next nonce 99", "account limit exceeded",
		"in-flight transaction limit reached for delegated accounts",
	} {
		t.Run(says, func(t *testing.T) {
			f, node, _ := withTwo(t)
			node.override = func(method string, params []json.RawMessage) (any, *rpcError, bool) {
				if method != "eth_sendRawTransaction" || sentBy(transaction(t, params[0])) != first {
					return nil, nil, false
				}
				return nil, &rpcError{Code: -32000, Message: says}, true
			}
			if s, by := node.pay(f, 1); s.Outcome != facilitator.Settled || by != second {
				t.Errorf("%+v by %s", s, by)
			}
			if c := f.chains[baseSepolia]; c.accounts[0].taken != [kinds]int{} || c.accounts[1].taken != [kinds]int{} {
				t.Errorf("%v and %v places are taken", c.accounts[0].taken, c.accounts[1].taken)
			}
		})
	}
	for _, says := range []string{"txpool is full", "execution reverted", "internal error"} {
		t.Run(says, func(t *testing.T) {
			f, node, _ := withTwo(t)
			node.world.WriteError = says
			s, _ := node.pay(f, 1)
			if n := node.count("eth_sendRawTransaction"); s.Outcome == facilitator.Settled || n != 1 {
				t.Errorf("%+v, sent %d times", s, n)
			}
		})
	}
}

func transaction(t testing.TB, raw json.RawMessage) *types.Transaction {
	t.Helper()
	var b hexutil.Bytes
	tx := new(types.Transaction)
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Error(err)
	}
	if err := tx.UnmarshalBinary(b); err != nil {
		t.Error(err)
	}
	return tx
}

// TestAllAccountsEmpty: nothing is sent, and the log says so; as soon as one has
// gas, it settles.
func TestAllAccountsEmpty(t *testing.T) {
	f, node, logs := withTwo(t)
	node.balances[first], node.balances[second] = big.NewInt(1), big.NewInt(0)
	for n := range byte(3) {
		if s, by := node.pay(f, n); s.Outcome != facilitator.Unsent || by != (common.Address{}) {
			t.Fatalf("%+v by %s", s, by)
		}
	}
	if logs.FilterMessageSnippet("nothing can be settled").FilterLevelExact(zapcore.ErrorLevel).Len() == 0 {
		t.Errorf("log: %s", logged(logs))
	}
	node.balances[second] = big.NewInt(1e18)
	_ = node.clock.sleep(context.Background(), setAsideFor)
	for n := byte(3); ; n++ {
		if s, by := node.pay(f, n); s.Outcome == facilitator.Settled && by == second {
			break
		} else if n == 6 {
			t.Fatalf("with gas: %+v by %s", s, by)
		}
	}
}

// TestGasInFlightCounts: what is on its way is paid first, so an account that has
// enough for two does not send three.
func TestGasInFlightCounts(t *testing.T) {
	f, node, _ := withTwo(t)
	const one = transferGas * 3e9 // twice the base fee and the tip
	node.balances[first], node.balances[second] = big.NewInt(2*one), big.NewInt(0)
	if _, err := f.Supported(context.Background()); err != nil {
		t.Fatal(err)
	}
	f.chains[baseSepolia].shared.standings.moved(chain.AddressTopic(common.HexToAddress(payerAddress))) // else two is all that there may be
	node.world.ReceiptThrows, node.clock.max = true, 5                                                  // they stay on their way
	for n := range byte(3) {
		s, by := node.pay(f, n)
		if want := n < 2; (by == first) != want || (s.Outcome == facilitator.Unknown) != want {
			t.Errorf("%d: %+v by %s", n, s, by)
		}
	}
}

// TestUptoIsSettledByWhomItNames: the payer has named one of our accounts, and no
// other can settle, whether or not that one has gas.
func TestUptoIsSettledByWhomItNames(t *testing.T) {
	f, node, logs := withTwo(t)
	upto := func(nonce byte, name string) (verified, settled facilitator.Request) {
		return permitOrder{upto: true, nonce: nonce, facilitator: name, charge: "5000"}.sign(t, node.clock.now().Unix())
	}
	for n, name := range []string{signerAddress, secondAddress, signerAddress, secondAddress} {
		r, toSettle := upto(byte(n), name)
		if v, err := f.Verify(context.Background(), r); err != nil || !v.Valid {
			t.Fatalf("verify: %+v, %v", v, err)
		}
		s := f.Settle(context.Background(), toSettle)
		if s.Outcome != facilitator.Settled || s.Amount != "5000" || sentBy(node.sent[n]).Hex() != name {
			t.Errorf("%d: %+v by %s", n, s, sentBy(node.sent[n]))
		}
	}
	r, toSettle := upto(5, payee)
	asked := node.total()
	if v, err := f.Verify(context.Background(), r); err != nil || v.Reason != string(x402.CodeUptoFacilitator) {
		t.Errorf("verify of a stranger's: %+v, %v", v, err)
	}
	if s := f.Settle(context.Background(), toSettle); s.Outcome != facilitator.Refused || s.Reason != string(x402.CodeUptoFacilitator) {
		t.Errorf("a stranger's: %+v", s)
	}
	if node.total() != asked {
		t.Error("the node was asked about a stranger's")
	}
	node.balances[first] = big.NewInt(1)
	_, toSettle = upto(6, signerAddress)
	if s := f.Settle(context.Background(), toSettle); s.Outcome != facilitator.Unsent {
		t.Errorf("without gas: %+v", s)
	}
	if logs.FilterMessageSnippet("upto payments that name it").Len() != 1 {
		t.Errorf("log: %s", logged(logs))
	}
	// The other goes on.
	if s, by := node.pay(f, 7); s.Outcome != facilitator.Settled || by != second {
		t.Errorf("%+v by %s", s, by)
	}
}

// TestSimulatedAsWhoSends: the simulation is from the account that will send.
func TestSimulatedAsWhoSends(t *testing.T) {
	f, node, _ := withTwo(t)
	var from []common.Address
	node.override = func(method string, params []json.RawMessage) (any, *rpcError, bool) {
		if method == "eth_call" {
			var call struct{ From *common.Address }
			_ = json.Unmarshal(params[0], &call)
			if call.From != nil { // else a question about a balance
				from = append(from, *call.From)
			}
		}
		return nil, nil, false
	}
	for n, name := range []string{secondAddress, signerAddress} {
		from = nil
		r, toSettle := permitOrder{upto: true, nonce: byte(n), facilitator: name}.sign(t, node.clock.now().Unix())
		if v, err := f.Verify(context.Background(), r); err != nil || !v.Valid {
			t.Fatalf("verify: %+v, %v", v, err)
		}
		if s := f.Settle(context.Background(), toSettle); s.Outcome != facilitator.Settled {
			t.Fatalf("%+v", s)
		}
		if len(from) != 2 || slices.ContainsFunc(from, func(a common.Address) bool { return a.Hex() != name }) {
			t.Errorf("simulated as %s, and sent by %s", from, name)
		}
	}
}

// TestSupportedNamesAll: all accounts are listed, and upto names the first, at each
// call, with and without gas, and in the next config.
func TestSupportedNamesAll(t *testing.T) {
	f, node, _ := withTwo(t)
	again, _ := start(t, baseSepolia, &Network{RPC: []string{node.URL}, Signers: f.Networks[baseSepolia].Signers}, node.clock)
	for i := range 6 {
		if i == 2 {
			node.set(func(s *scripted) { s.balances[first] = new(big.Int) })
		}
		for _, f := range []*Facilitator{f, again} {
			s, err := f.Supported(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Signers["eip155:*"]; !slices.Equal(got, []string{signerAddress, secondAddress}) {
				t.Errorf("signers %v", got)
			}
			for _, k := range s.Kinds {
				if k.Scheme == "upto" && string(k.Extra) != `{"facilitatorAddress":"`+signerAddress+`"}` {
					t.Errorf("%d: %s", i, k.Extra)
				}
			}
		}
	}
}

// TestPayeeIsNoneOfOurs: the money must not go to a key on this machine.
func TestPayeeIsNoneOfOurs(t *testing.T) {
	f, node, _ := withTwo(t)
	for _, to := range []string{signerAddress, secondAddress} {
		if s := f.Settle(context.Background(), order{to: to}.sign(t, node.clock.now().Unix())); s.Outcome != facilitator.Unsent || len(node.sent) > 0 {
			t.Errorf("to %s: %+v", to, s)
		}
	}
}

// TestRepeatIsOfTheSameAccount: after an answer that was lost, and a receipt that
// does not come, a repeat sends nothing from the other account.
func TestRepeatIsOfTheSameAccount(t *testing.T) {
	f, node, _ := withTwo(t)
	node.world.ReceiptThrows, node.clock.max = true, 10
	node.Config.Handler = lossy(node)
	r := order{}.sign(t, node.clock.now().Unix())
	for range 2 {
		if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Unknown || s.Transaction != node.sent[0].Hash().Hex() || len(node.sent) != 1 {
			t.Fatalf("%+v, %d sent", s, len(node.sent))
		}
	}
	node.set(func(n *scripted) { n.world.ReceiptThrows = false })
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled || len(node.sent) != 1 {
		t.Errorf("%+v, %d sent", s, len(node.sent))
	}
}

// TestStuckAccount: an account whose transaction no block takes is passed over, and
// that transaction is replaced by one of its own key.
func TestStuckAccount(t *testing.T) {
	f, node, logs := withTwo(t)
	node.clock.max = 1000
	stuck := true
	node.override = func(method string, params []json.RawMessage) (any, *rpcError, bool) {
		if method != "eth_getTransactionReceipt" || !stuck {
			return nil, nil, false
		}
		var hash common.Hash
		_ = json.Unmarshal(params[0], &hash)
		isFirst := slices.ContainsFunc(node.sent, func(tx *types.Transaction) bool { return tx.Hash() == hash && sentBy(tx) == first })
		return nil, nil, isFirst
	}
	begin := node.clock.now()
	f.chains[baseSepolia].sleep = func(ctx context.Context, d time.Duration) error {
		if stuck && node.clock.now().Sub(begin) > stuckAfter+lastPoll {
			stuck = false                                                                     // only once
			occupy(f.chains[baseSepolia].shared.queue, f.chains[baseSepolia].accounts[1:], 5) // the other has more to do
			if s, by := node.pay(f, 2); s.Outcome != facilitator.Settled || by != second {
				t.Errorf("meanwhile: %+v by %s", s, by)
			}
		}
		return node.clock.sleep(ctx, d)
	}
	if s := f.Settle(context.Background(), order{nonce: 1}.sign(t, begin.Unix())); s.Outcome != facilitator.Settled {
		t.Fatalf("%+v", s)
	}
	if len(node.sent) != 3 || sentBy(node.sent[0]) != first || sentBy(node.sent[1]) != first || node.sent[1].Nonce() != node.sent[0].Nonce() {
		t.Errorf("%d were sent", len(node.sent))
	}
	if said := logs.FilterMessageSnippet("sent again for a higher fee").All(); len(said) != 1 || said[0].ContextMap()["account"] != signerAddress {
		t.Errorf("log: %s", logged(logs))
	}
}
