package soak

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	caddycore "github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-paywall/caddy-paywall/devchain"
	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// remote is a facilitator behind HTTP that settles on the chain, once per
// authorization, and misbehaves when it is told to.
type remote struct {
	*httptest.Server
	settler *evm.Facilitator
	gone    context.Context // ends with the test, for those who never answer

	mu                sync.Mutex
	scripts           map[common.Hash]*script // by nonce
	settles, verifies int
	answered          map[common.Hash][]time.Time // when a call to /settle ended, by nonce
}

// manners are how a call to /settle is answered. inner settles; an error means
// that it cannot be known here.
type manners func(w http.ResponseWriter, r *http.Request, inner func() facilitator.Settlement)

// script is how the calls for one purchase are answered, in turn; then, well.
// It is shared by all that is signed for the purchase.
type script struct {
	mu     sync.Mutex
	calls  []manners
	verify time.Duration // how long /verify takes
}

func (s *script) next() manners {
	if s == nil {
		return well
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls) == 0 {
		return well
	}
	m := s.calls[0]
	s.calls = s.calls[1:]
	return m
}

func newRemote(t testing.TB, m *money) *remote {
	t.Helper()
	gas := m.Accounts()
	key := filepath.Join(t.TempDir(), "gas")
	if err := os.WriteFile(key, []byte(gas[len(gas)-1].PrivateKey), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &remote{gone: ctx, scripts: map[common.Hash]*script{}, answered: map[common.Hash][]time.Time{}, settler: &evm.Facilitator{Networks: map[string]*evm.Network{
		fmt.Sprintf("eip155:%d", devchain.ChainID): {RPC: []string{m.RPC()}, Signers: []string{"{file." + key + "}"}},
	}}}
	if err := f.settler.Provision(caddycore.Context{Context: ctx}); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /supported", func(w http.ResponseWriter, r *http.Request) {
		s, err := f.settler.Supported(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		// Gateways translate what comes in version 1.
		s.Kinds = slices.DeleteFunc(s.Kinds, func(k x402.Kind) bool { return k.X402Version != x402.V2 })
		_ = json.NewEncoder(w).Encode(s)
	})
	mux.HandleFunc("POST /verify", f.verify)
	mux.HandleFunc("POST /settle", f.settle)
	f.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		cancel()
		f.CloseClientConnections()
		f.Close()
		_ = f.settler.Cleanup()
	})
	return f
}

// misbehave sets the manners for what is signed with a nonce.
func (f *remote) misbehave(nonce common.Hash, s *script) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.scripts[nonce] = s
}

// counts says how often /settle and /verify were called.
func (f *remote) counts() (settles, verifies int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.settles, f.verifies
}

// read reads the body of a call.
func read(r *http.Request) (facilitator.Request, common.Hash, error) {
	var body struct {
		PaymentPayload      json.RawMessage
		PaymentRequirements x402.Requirement
	}
	raw, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(raw, &body)
	}
	if err != nil {
		return facilitator.Request{}, common.Hash{}, err
	}
	p, err := x402.Decode(http.Header{x402.HeaderPaymentSignature: {base64.StdEncoding.EncodeToString(body.PaymentPayload)}})
	if err != nil {
		return facilitator.Request{}, common.Hash{}, err
	}
	a, err := p.Authorization(body.PaymentRequirements)
	return facilitator.Request{Payment: p, Requirement: body.PaymentRequirements, Payer: a.Payer}, a.Nonce, err
}

func (f *remote) verify(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.verifies++
	f.mu.Unlock()
	request, nonce, err := read(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	s := f.scripts[nonce]
	f.mu.Unlock()
	if s != nil {
		sleep(r.Context(), s.verify)
	}
	v, err := f.settler.Verify(r.Context(), request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"isValid": v.Valid, "invalidReason": v.Reason, "payer": v.Payer})
}

func (f *remote) settle(w http.ResponseWriter, r *http.Request) {
	request, nonce, err := read(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	f.settles++
	s := f.scripts[nonce]
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.answered[nonce] = append(f.answered[nonce], time.Now())
	}()
	s.next()(w, r, func() facilitator.Settlement {
		// A gateway that dies meanwhile does not stop us.
		ctx, cancel := context.WithTimeout(f.gone, 90*time.Second)
		defer cancel()
		return f.settler.Settle(ctx, request)
	})
}

// says is an answer to /settle.
func says(s facilitator.Settlement) []byte {
	b, _ := json.Marshal(map[string]any{
		"success": s.Outcome == facilitator.Settled, "transaction": s.Transaction,
		"network": s.Network, "payer": s.Payer, "errorReason": s.Reason,
	})
	return b
}

// well answers truthfully.
func well(w http.ResponseWriter, _ *http.Request, inner func() facilitator.Settlement) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(says(inner()))
}
