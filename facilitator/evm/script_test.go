package evm

import (
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// world is what the scripted node knows. Its JSON is that of the vectors.
type world struct {
	Sim       *bool  // the transfer would succeed
	Balance   string // of the payer
	Allowance string // of Permit2
	Proxy     *bool  // the proxies of x402 are on the chain
	Used      bool   // the nonce
	AuthState *bool  // the token has authorizationState
	Name      string
	Version   string
	Code      map[string]string
	ERC1271   any `json:"erc1271"`

	Receipt       string // "reverted"
	Logs          string // "none"
	WriteError    string
	ReceiptThrows bool
}

// scripted is a JSON-RPC node that plays a world.
type scripted struct {
	*httptest.Server
	t testing.TB

	mu      sync.Mutex
	world   world
	clock   *clock
	chain   uint64
	price   int64
	balance *big.Int // of the signer
	nonce   uint64   // of the signer
	// of single accounts
	balances map[common.Address]*big.Int
	nonces   map[common.Address]uint64
	noBatch  bool
	noMulti  bool // there is no Multicall3
	events   []chain.Event
	asked    []string
	sent     []*types.Transaction
	// override answers instead, if it returns true.
	override func(method string, params []json.RawMessage) (any, *rpcError, bool)
}

type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Data    string `json:"data,omitempty"`
}

func script(t testing.TB, c *clock, w world) *scripted {
	t.Helper()
	s := &scripted{t: t, world: w, clock: c, chain: 84532, price: 1e9, balance: big.NewInt(1e18), nonce: 7}
	s.balances, s.nonces = make(map[common.Address]*big.Int), make(map[common.Address]uint64)
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// ServeHTTP answers a call or a batch.
func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	if len(body) > 0 && body[0] == '[' {
		var calls []json.RawMessage
		_ = json.Unmarshal(body, &calls)
		if s.noBatch {
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no batches here"}}`)
			return
		}
		answers := make([]json.RawMessage, len(calls))
		for i, c := range calls {
			answers[i] = s.one(c)
		}
		_ = json.NewEncoder(w).Encode(answers)
		return
	}
	_, _ = w.Write(s.one(body))
}

func (s *scripted) one(raw json.RawMessage) json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	var call struct {
		ID     json.RawMessage
		Method string
		Params []json.RawMessage
	}
	_ = json.Unmarshal(raw, &call)
	s.asked = append(s.asked, call.Method)
	answer := map[string]any{"jsonrpc": "2.0", "id": call.ID}
	result, failed := s.answer(call.Method, call.Params)
	if failed != nil {
		answer["error"] = failed
	} else {
		answer["result"] = result
	}
	b, err := json.Marshal(answer)
	if err != nil {
		s.t.Error(err)
	}
	return b
}

func (s *scripted) answer(method string, params []json.RawMessage) (any, *rpcError) {
	if s.override != nil {
		if result, failed, ok := s.override(method, params); ok {
			return result, failed
		}
	}
	switch method {
	case "eth_chainId":
		return hexutil.Uint64(s.chain), nil
	case "eth_blockNumber":
		return hexutil.Uint64(100), nil
	case "eth_getBlockByNumber":
		return map[string]any{"number": "0x64", "timestamp": hexutil.Uint64(s.clock.now().Unix()), "baseFeePerGas": hexutil.Uint64(s.price)}, nil
	case "eth_getCode":
		return s.code(address(params[0])), nil
	case "eth_getBalance":
		if balance, ok := s.balances[address(params[0])]; ok {
			return (*hexutil.Big)(balance), nil
		}
		return (*hexutil.Big)(s.balance), nil
	case "eth_getTransactionCount":
		number := max(s.nonce, s.nonces[address(params[0])])
		if string(params[1]) == `"pending"` {
			for _, tx := range s.sent {
				if sentBy(tx) == address(params[0]) {
					number = max(number, tx.Nonce()+1)
				}
			}
		}
		return hexutil.Uint64(number), nil
	case "eth_gasPrice", "eth_maxPriorityFeePerGas":
		return hexutil.Uint64(s.price), nil
	case "eth_call":
		return s.call(params[0])
	case "eth_sendRawTransaction":
		return s.send(params[0])
	case "eth_getTransactionReceipt":
		return s.receipt(params[0]), nil
	case "eth_getTransactionByHash":
		for _, tx := range s.sent {
			if fmt.Sprintf("%q", tx.Hash().Hex()) == string(params[0]) {
				return chain.Transaction{Hash: tx.Hash(), To: tx.To(), Input: tx.Data()}, nil
			}
		}
		return nil, nil
	case "eth_getLogs":
		if s.events == nil {
			return []chain.Event{}, nil
		}
		return s.events, nil
	}
	return nil, &rpcError{Code: -32601, Message: "the method " + method + " does not exist/is not available"}
}

func address(raw json.RawMessage) common.Address {
	var a common.Address
	_ = json.Unmarshal(raw, &a)
	return a
}

func (s *scripted) code(a common.Address) string {
	if code, ok := s.world.Code[strings.ToLower(a.Hex())]; ok {
		return code
	}
	switch a {
	case common.HexToAddress(usdc), chain.ExactProxy, chain.UptoProxy:
		return "0x60"
	case multicall3:
		if !s.noMulti {
			return "0x60"
		}
	}
	return "0x"
}

func (s *scripted) call(raw json.RawMessage) (any, *rpcError) {
	var c struct {
		To   common.Address
		Data hexutil.Bytes
	}
	_ = json.Unmarshal(raw, &c)
	revert := &rpcError{Code: 3, Message: "execution reverted", Data: "0x"}
	switch {
	case c.To == multicall3 && s.noMulti, c.To == feeOracle:
		return "0x", nil
	case c.To == multicall3 && [4]byte(c.Data) != [4]byte(chain.Contracts.Methods["aggregate3"].ID):
		return s.tryAggregate(c.Data), nil
	case c.To == multicall3 && len(*s.calls(c.Data)) == 3: // counting
		return "0x", nil
	case [4]byte(c.Data) == approveSelector:
		return "0x", nil
	case s.isSettlement(c.To, c.Data):
		if s.world.Sim != nil && !*s.world.Sim {
			return nil, revert
		}
		return "0x", nil
	case [4]byte(c.Data) == [4]byte(chain.Contracts.Methods["isValidSignature"].ID):
		switch s.world.ERC1271 {
		case true:
			return hexutil.Bytes(magic1271), nil
		case "revert":
			return nil, revert
		}
		return hexutil.Bytes(make([]byte, 32)), nil
	}
	r := s.token(c.Data)
	if !r.Success {
		return nil, revert
	}
	return hexutil.Bytes(r.ReturnData), nil
}

// calls decodes aggregate3.
func (s *scripted) calls(data []byte) *[]call3 {
	args, err := chain.Contracts.Methods["aggregate3"].Inputs.Unpack(data[4:])
	if err != nil {
		s.t.Error(err)
		return new([]call3)
	}
	return convert[[]call3](args[0])
}

// isSettlement reports whether a call moves money.
func (s *scripted) isSettlement(to common.Address, data []byte) bool {
	switch [4]byte(data) {
	case transferSelector, transferBytesSelector, chain.SettleExact, chain.SettleExact2612, chain.SettleUpto, chain.SettleUpto2612:
		return true
	}
	return to == multicall3
}

func (s *scripted) tryAggregate(data []byte) hexutil.Bytes {
	method := chain.Contracts.Methods["tryAggregate"]
	args, err := method.Inputs.Unpack(data[4:])
	if err != nil {
		s.t.Error(err)
		return nil
	}
	var results []result3
	for _, c := range *convert[[]call3](args[1]) {
		results = append(results, s.token(c.CallData))
	}
	b, err := method.Outputs.Pack(results)
	if err != nil {
		s.t.Error(err)
	}
	return b
}

// token answers for the token.
func (s *scripted) token(data []byte) result3 {
	method, err := chain.Contracts.MethodById(data)
	if err != nil {
		s.t.Error(err)
		return result3{}
	}
	or := func(v, otherwise string) string {
		if v == "" {
			return otherwise
		}
		return v
	}
	var out any
	switch method.Name {
	case "balanceOf":
		balance, _ := new(big.Int).SetString(or(s.world.Balance, "1000000000"), 10)
		out = balance
	case "allowance":
		allowance, _ := new(big.Int).SetString(or(s.world.Allowance, "1000000000"), 10)
		out = allowance
	case "nonceBitmap":
		out = new(big.Int)
		if s.world.Used {
			out = common.MaxHash.Big()
		}
	case "PERMIT2":
		if s.world.Proxy != nil && !*s.world.Proxy {
			return result3{}
		}
		out = eip712.Permit2
	case "name":
		out = or(s.world.Name, "USDC")
	case "version":
		out = or(s.world.Version, "2")
	case "authorizationState":
		if s.world.AuthState != nil && !*s.world.AuthState {
			return result3{}
		}
		out = s.world.Used
	}
	b, err := method.Outputs.Pack(out)
	if err != nil {
		s.t.Error(err)
	}
	return result3{true, b}
}

func (s *scripted) send(raw json.RawMessage) (any, *rpcError) {
	var b hexutil.Bytes
	_ = json.Unmarshal(raw, &b)
	tx := new(types.Transaction)
	if err := tx.UnmarshalBinary(b); err != nil {
		return nil, &rpcError{Code: -32000, Message: err.Error()}
	}
	if s.world.WriteError != "" {
		return nil, &rpcError{Code: -32000, Message: s.world.WriteError}
	}
	s.sent = append(s.sent, tx)
	return tx.Hash(), nil
}

// receipt mines what was sent.
func (s *scripted) receipt(raw json.RawMessage) any {
	var hash common.Hash
	_ = json.Unmarshal(raw, &hash)
	if s.world.ReceiptThrows {
		return nil
	}
	for _, tx := range s.sent {
		if tx.Hash() != hash {
			continue
		}
		from := sentBy(tx)
		s.nonces[from] = max(s.nonces[from], tx.Nonce()+1)
		r := map[string]any{"transactionHash": hash, "blockNumber": "0x65", "status": "0x1", "logs": []chain.Event{}}
		if s.world.Receipt == "reverted" {
			r["status"] = "0x0"
		} else if s.world.Logs != "none" {
			r["logs"] = transferEvents(tx)
		}
		return r
	}
	return nil
}

// sentBy is who signed a transaction.
func sentBy(tx *types.Transaction) common.Address {
	return must(types.Sender(types.LatestSignerForChainID(tx.ChainId()), tx))
}

// What tokens write.
var (
	usedTopic     = crypto.Keccak256Hash([]byte("AuthorizationUsed(address,bytes32)"))
	canceledTopic = crypto.Keccak256Hash([]byte("AuthorizationCanceled(address,bytes32)"))
	transferTopic = crypto.Keccak256Hash([]byte("Transfer(address,address,uint256)"))
)

// transferEvents are what a token writes about a settlement.
func transferEvents(tx *types.Transaction) []chain.Event {
	to, data := *tx.To(), tx.Data()
	if to == multicall3 { // the second of its calls is the settlement
		args, err := chain.Contracts.Methods["aggregate3"].Inputs.Unpack(data[4:])
		if err != nil {
			panic(err)
		}
		inner := (*convert[[]struct {
			Target   common.Address
			CallData []byte
		}](args[0]))[1]
		to, data = inner.Target, inner.CallData
	}
	word := func(i int) common.Hash { return common.Hash(data[4+32*i : 36+32*i]) }
	transfer := func(token common.Address, from, to, value common.Hash) chain.Event {
		return chain.Event{Address: token, Topics: []common.Hash{transferTopic, from, to}, Data: value[:], Transaction: tx.Hash()}
	}
	skip := 0 // the permit
	switch [4]byte(data) {
	case chain.SettleExact2612, chain.SettleUpto2612:
		skip = 5
	}
	token := common.BytesToAddress(word(skip).Bytes())
	switch [4]byte(data) {
	case chain.SettleExact, chain.SettleExact2612:
		return []chain.Event{transfer(token, word(skip+4), word(skip+5), word(skip+1))}
	case chain.SettleUpto, chain.SettleUpto2612:
		return []chain.Event{transfer(token, word(skip+5), word(skip+6), word(skip+4))}
	}
	return []chain.Event{
		{Address: to, Topics: []common.Hash{usedTopic, word(0), word(5)}, Transaction: tx.Hash()},
		transfer(to, word(0), word(1), word(2)),
	}
}

// count says how often a method was called.
func (s *scripted) count(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, m := range s.asked {
		if m == method {
			n++
		}
	}
	return n
}

// total says how many calls were made.
func (s *scripted) total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// set changes the world.
func (s *scripted) set(change func(*scripted)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func convert[T any](v any) *T {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprint(err))
	}
	out := new(T)
	if err := json.Unmarshal(b, out); err != nil {
		panic(fmt.Sprint(err))
	}
	return out
}
