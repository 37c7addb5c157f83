package chain

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common/hexutil"
)

const (
	baseSepolia = "eip155:84532"
	usdc        = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
	// secret is an API key in the URL of a node.
	secret = "api-key-c0ffee"
)

// fake is a node on loopback. Of itself it knows its chain id and a last block that is new.
type fake struct {
	*httptest.Server
	answer func(method string, params []json.RawMessage) (result any, fault *rpcError, ok bool)

	mu    sync.Mutex
	asked []string // methods
}

type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// startFake starts a node. answer may be nil, and passes over what it does not care about.
func startFake(t *testing.T, answer func(method string, params []json.RawMessage) (any, *rpcError, bool)) *fake {
	f := &fake{answer: answer}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// ServeHTTP answers one call or a batch of them.
func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body json.RawMessage
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if body[0] != '[' {
		_ = json.NewEncoder(w).Encode(f.one(body))
		return
	}
	var batch []json.RawMessage
	_ = json.Unmarshal(body, &batch)
	answers := make([]any, len(batch))
	for i, call := range batch {
		answers[i] = f.one(call)
	}
	_ = json.NewEncoder(w).Encode(answers)
}

func (f *fake) one(raw json.RawMessage) any {
	var call struct {
		ID     json.RawMessage
		Method string
		Params []json.RawMessage
	}
	_ = json.Unmarshal(raw, &call)
	f.mu.Lock()
	f.asked = append(f.asked, call.Method)
	f.mu.Unlock()
	answer := map[string]any{"jsonrpc": "2.0", "id": call.ID}
	if f.answer != nil {
		if result, fault, ok := f.answer(call.Method, call.Params); ok {
			if answer["result"] = result; fault != nil {
				delete(answer, "result")
				answer["error"] = fault
			}
			return answer
		}
	}
	switch call.Method {
	case "eth_chainId":
		answer["result"] = "0x14a34"
	case "eth_getBlockByNumber":
		answer["result"] = map[string]any{"number": "0x64", "hash": "0x" + strings.Repeat("64", 32), "timestamp": hexutil.Uint64(time.Now().Unix())}
	default:
		answer["error"] = rpcError{Code: -32601, Message: "the method " + call.Method + " does not exist"}
	}
	return answer
}
