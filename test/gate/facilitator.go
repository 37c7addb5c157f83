package gate

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Facilitator says yes to everything, until told otherwise. It remembers what has
// moved, as a chain would: what one nonce has moved once does not move again.
type Facilitator struct {
	*httptest.Server
	Supported, Verified, Settled atomic.Int64 // how often it was asked
	Kinds                        atomic.Value // string: the answer of /supported
	verify, settle               atomic.Pointer[http.HandlerFunc]
	all                          atomic.Pointer[http.HandlerFunc] // answers instead, and nothing is counted

	mu          sync.Mutex
	bodies      [][]byte
	moved       map[string]transfer // by nonce
	order       []string            // of the nonces
	settlements []SettleCall
}

// transfer is what has moved.
type transfer struct{ transaction, amount string }

// SettleCall is what a facilitator was asked to settle.
type SettleCall struct {
	PaymentPayload struct {
		Accepted   x402.Requirement
		Extensions map[string]any
		Payload    struct {
			Authorization        struct{ From, Nonce string }
			Permit2Authorization struct{ From, Nonce string }
		}
	}
	PaymentRequirements x402.Requirement
	Body                string
}

// NewFacilitator starts one that settles test dollars on Base Sepolia.
func NewFacilitator(t testing.TB) *Facilitator {
	f := &Facilitator{moved: map[string]transfer{}}
	f.Kinds.Store(`{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:84532"}],"extensions":[],"signers":{}}`)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /supported", func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(f.Kinds.Load().(string)))
		f.Supported.Add(1)
	})
	mux.HandleFunc("POST /verify", func(w http.ResponseWriter, r *http.Request) {
		f.Verified.Add(1)
		f.keep(r)
		if h := f.verify.Load(); h != nil {
			(*h)(w, r)
			return
		}
		w.Write([]byte(`{"isValid":true}`))
	})
	mux.HandleFunc("POST /settle", func(w http.ResponseWriter, r *http.Request) {
		f.Settled.Add(1)
		f.keep(r)
		call := callOf(Body(r))
		f.mu.Lock()
		f.settlements = append(f.settlements, call)
		f.mu.Unlock()
		if h := f.settle.Load(); h != nil {
			(*h)(w, r)
			return
		}
		f.Settle(w, r)
	})
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := f.all.Load(); h != nil {
			(*h)(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

// Body reads what a facilitator is asked, and leaves it to be read again.
func Body(r *http.Request) []byte {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body
}

// keep remembers what it is asked.
func (f *Facilitator) keep(r *http.Request) {
	body := Body(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bodies = append(f.bodies, body)
}

// Asked is what it was asked: the bodies of /verify and /settle.
func (f *Facilitator) Asked() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.bodies)
}

// Calls is how often anything was asked about a payment.
func (f *Facilitator) Calls() int64 { return f.Verified.Load() + f.Settled.Load() }

// Settle settles: the answer of /settle, unless a test has another one.
func (f *Facilitator) Settle(w http.ResponseWriter, r *http.Request) { f.Move(w, Body(r)) }

// Move settles what /settle is asked with a body: once per nonce, the same
// transaction and amount ever after.
func (f *Facilitator) Move(w http.ResponseWriter, body []byte) {
	call := callOf(body)
	a, permit := call.PaymentPayload.Payload.Authorization, call.PaymentPayload.Payload.Permit2Authorization
	if permit.Nonce != "" {
		a = permit
	}
	f.mu.Lock()
	made, ok := f.moved[a.Nonce]
	if !ok {
		made = transfer{randomHash(), call.PaymentRequirements.Amount}
		f.put(a.Nonce, made)
	}
	f.mu.Unlock()
	answer := map[string]any{
		"success": true, "transaction": made.transaction, "network": call.PaymentRequirements.Network, "payer": a.From,
	}
	if permit.Nonce != "" {
		answer["amount"] = made.amount
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func callOf(body []byte) SettleCall {
	call := SettleCall{Body: string(body)}
	_ = json.Unmarshal(body, &call)
	return call
}

func (f *Facilitator) put(nonce string, made transfer) {
	if _, again := f.moved[nonce]; !again {
		f.order = append(f.order, nonce)
	}
	f.moved[nonce] = made
}

func randomHash() string {
	var hash [32]byte
	_, _ = rand.Read(hash[:])
	return "0x" + hex.EncodeToString(hash[:])
}

// Moves records a transfer that a test's own answer stands for.
func (f *Facilitator) Moves(nonce, transaction string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(nonce, transfer{transaction: transaction})
}

// Transfers is how often money has moved.
func (f *Facilitator) Transfers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.moved)
}

// Amounts is what has moved, payment by payment.
func (f *Facilitator) Amounts() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, nonce := range f.order {
		all = append(all, f.moved[nonce].amount)
	}
	return all
}

// ExpectMoved compares what has moved.
func (f *Facilitator) ExpectMoved(t testing.TB, amounts ...string) {
	t.Helper()
	if got := f.Amounts(); !slices.Equal(got, amounts) {
		t.Errorf("moved %v, want %v", got, amounts)
	}
}

// Settlements is what /settle was asked.
func (f *Facilitator) Settlements() []SettleCall {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.settlements)
}

// Anew forgets what has moved and whatever a test let answer /settle.
func (f *Facilitator) Anew() *Facilitator {
	f.OnSettle(nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.moved)
	f.order, f.settlements = nil, nil
	return f
}

// OnVerify lets h answer /verify; nil: as at first.
func (f *Facilitator) OnVerify(h http.HandlerFunc) { put(&f.verify, h) }

// OnSettle lets h answer /settle; nil: as at first.
func (f *Facilitator) OnSettle(h http.HandlerFunc) { put(&f.settle, h) }

// OnAll lets h answer everything, and nothing is counted; nil: as at first.
func (f *Facilitator) OnAll(h http.HandlerFunc) { put(&f.all, h) }

// AnswersAll lets h answer everything until it is back.
func (f *Facilitator) AnswersAll(h http.HandlerFunc) (back func()) {
	f.OnAll(h)
	return func() { f.OnAll(nil) }
}

// Lost settles and loses the answer.
func (f *Facilitator) Lost(_ http.ResponseWriter, r *http.Request) {
	f.Settle(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

// put stores a handler, or that there is none.
func put(at *atomic.Pointer[http.HandlerFunc], h http.HandlerFunc) {
	if h == nil {
		at.Store(nil)
		return
	}
	at.Store(&h)
}

// Says answers with a status and a body.
func Says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// Drop ends a connection without an answer.
func Drop(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// RefusedSettle is a definite no.
var RefusedSettle = Says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`)

// KindsWithUpto is a /supported with upto for an account.
func KindsWithUpto(account string, extensions ...string) string {
	list, _ := json.Marshal(append([]string{}, extensions...))
	return `{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:84532"},
		{"x402Version":2,"scheme":"upto","network":"eip155:84532","extra":{"facilitatorAddress":"` + account + `"}}],
		"extensions":` + string(list) + `,"signers":{}}`
}

// FacilitatorA and FacilitatorB are accounts of facilitators, as /supported names them.
const (
	FacilitatorA = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
	FacilitatorB = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
)
