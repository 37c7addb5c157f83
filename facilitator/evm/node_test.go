package evm

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// secret is an API key in the URL of a node.
const secret = "api-key-c0ffee"

func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/v2/" + secret + "?token=" + secret
}

// closedPort is the URL of a node that is down.
func closedPort(t testing.TB) string {
	t.Helper()
	s := httptest.NewServer(nil)
	s.Close()
	return s.URL + "/v2/" + secret
}

// badNodes are nodes that say nothing of use.
func badNodes(t testing.TB) map[string]string {
	elsewhere := script(t, newClock(1767225600), world{})
	elsewhere.chain = 1
	wellBehaved := script(t, newClock(1767225600), world{})
	behind := script(t, newClock(1767225600-60), world{})
	says := func(status int, body string) string {
		return serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
	}
	return map[string]string{
		"down":             closedPort(t),
		"on another chain": elsewhere.URL,
		"behind":           behind.URL,
		"busy":             says(429, "slow down, "+secret),
		"no access":        says(401, "bad key "+secret),
		"broken":           says(502, "<html>"),
		"not JSON":         says(200, "<html>"),
		"empty":            says(200, ""),
		"empty batch":      says(200, "[]"),
		"null":             says(200, "null"),
		"error in all":     says(200, `[{"jsonrpc":"2.0","id":1,"error":{"code":-32005,"message":"limit"}}]`),
		"redirect": serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, wellBehaved.URL, http.StatusTemporaryRedirect)
		}),
	}
}

// TestNodeIsNoHelp: an unclear answer is never a no. Nothing is sent, and nobody
// is told to sign again.
func TestNodeIsNoHelp(t *testing.T) {
	r, unix := good(t)
	for name, url := range badNodes(t) {
		t.Run(name, func(t *testing.T) {
			f, logs := start(t, baseSepolia, &Network{RPC: []string{url}}, newClock(unix))
			// Not on loopback, as far as the age of blocks goes.
			f.chains[baseSepolia].Development = false
			v, err := f.Verify(context.Background(), r)
			failed, ok := errors.AsType[*facilitator.Error](err)
			if !ok || v != (facilitator.Verdict{}) || failed.Status != http.StatusServiceUnavailable || failed.Op != "verify" {
				t.Errorf("verify: %+v, %v", v, err)
			}
			s := f.Settle(context.Background(), r)
			if s.Outcome != facilitator.Unsent || s.Reason != string(facilitator.CodeUnavailable) || s.Network != baseSepolia {
				t.Errorf("settle: %+v", s)
			}
			_, err2 := f.Supported(context.Background())
			if err2 == nil {
				t.Error("supported: no error")
			}
			for _, text := range []string{err.Error(), s.Detail, err2.Error(), logged(logs)} {
				if strings.Contains(text, secret) || len(text) > 2000 {
					t.Errorf("text for the log: %s", text)
				}
			}
		})
	}
}

// TestNextNode: the next node is asked, and stays the one that is asked first.
func TestNextNode(t *testing.T) {
	r, unix := good(t)
	for name, url := range badNodes(t) {
		t.Run(name, func(t *testing.T) {
			c := newClock(unix)
			node := script(t, c, world{})
			f, _ := start(t, baseSepolia, &Network{RPC: []string{url, node.URL}}, c)
			f.chains[baseSepolia].Development = false
			f.chains[baseSepolia].sleep = c.after(func() bool { return node.count("eth_sendRawTransaction") > 0 })
			if v, err := f.Verify(context.Background(), r); err != nil || !v.Valid {
				t.Fatalf("verify: %+v, %v", v, err)
			}
			if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled {
				t.Fatalf("settle: %+v", s)
			}
			if at := f.chains[baseSepolia]; at.InTurn(0)[0] != at.Nodes[1] {
				t.Error("the first node is asked first")
			}
		})
	}
}

// TestHangingNode: a node that does not answer costs a payer no more than a
// bounded wait.
func TestHangingNode(t *testing.T) {
	r, unix := good(t)
	stop := make(chan struct{})
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	})
	defer close(stop)
	f, _ := start(t, baseSepolia, &Network{RPC: []string{url}}, newClock(unix))
	_, err := f.Verify(during(t, 50*time.Millisecond), r)
	if failed, ok := errors.AsType[*facilitator.Error](err); !ok || failed.Code != facilitator.CodeTimeout {
		t.Errorf("verify: %v", err)
	}
	if s := f.Settle(during(t, 50*time.Millisecond), r); s.Outcome != facilitator.Unsent || s.Reason != string(facilitator.CodeTimeout) {
		t.Errorf("settle: %+v", s)
	}
}

func TestNodeWithoutBatches(t *testing.T) {
	f, node, r, _ := at(t, world{})
	node.noBatch = true
	for range 2 {
		if v, err := f.Verify(context.Background(), r); err != nil || !v.Valid {
			t.Errorf("%+v, %v", v, err)
		}
	}
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled {
		t.Errorf("%+v", s)
	}
}

// TestBatchesAgain: one bad answer to a batch ends batches for a minute, not for ever.
func TestBatchesAgain(t *testing.T) {
	for name, refuse := range map[string]http.HandlerFunc{
		"bad request": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) },
		"too large":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusRequestEntityTooLarge) },
		"one object": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"bad"}}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, node, r, _ := at(t, world{})
			inner := node.Config.Handler
			var requests atomic.Int64
			node.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) == 1 {
					refuse(w, r)
					return
				}
				inner.ServeHTTP(w, r)
			})
			for i, tt := range []struct {
				after time.Duration
				batch bool
			}{{0, false}, {0, false}, {time.Minute - time.Second, false}, {time.Second, true}, {0, true}} {
				_ = node.clock.sleep(t.Context(), tt.after)
				requests.Store(min(requests.Load(), 1))
				begun := requests.Load()
				if v, err := f.Verify(t.Context(), r); err != nil || !v.Valid {
					t.Fatalf("%d: %+v, %v", i, v, err)
				}
				if n := requests.Load() - begun; tt.batch != (n == 1) {
					t.Errorf("%d: %d requests, in a batch: %v", i, n, tt.batch)
				}
			}
		})
	}
}

// TestNodeGoesAway: the node dies right after it has taken the transaction. The
// payment is found when it is back.
func TestNodeGoesAway(t *testing.T) {
	f, node, r, _ := at(t, world{})
	var back atomic.Bool
	node.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !back.Load() && node.count("eth_sendRawTransaction") > 0 {
			panic(http.ErrAbortHandler)
		}
		node.ServeHTTP(w, r)
	})
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Unknown || s.Transaction == "" {
		t.Errorf("%+v", s)
	}
	back.Store(true)
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled || len(node.sent) != 1 {
		t.Errorf("%+v", s)
	}
}

// TestJunkCostsNothing: what can be refused without a node is. Whether a signature
// is a contract wallet's only the chain can tell, in one round trip.
func TestJunkCostsNothing(t *testing.T) {
	file := vectors(t)
	for _, r := range file.Verify {
		trips := 0
		switch r.Name {
		case "payTo differs", "validBefore = now+5", "requirement amount higher", "spender is not the proxy", "witness.to differs",
			"deadline in the past", "validAfter in the future", "amount differs", "token differs", "witness.facilitator is not this facilitator",
			"exact permit2 payload without facilitator":
		case "wrong signature", "high-s signature (malleated)", "ERC-6492, wallet not deployed, factory not allowed",
			"EIP-712 name differs from the one signed", "nonce changed (signature invalid)":
			trips = 1
		default:
			continue
		}
		t.Run(r.Scheme+"/"+r.Name, func(t *testing.T) {
			c := newClock(file.Clock)
			node := script(t, c, world{})
			f, _ := start(t, baseSepolia, &Network{RPC: []string{node.URL}}, c)
			req := request(t, r.PaymentPayload, r.PaymentRequirements.Requirement)
			if v, err := f.Verify(context.Background(), req); err != nil || v.Valid {
				t.Errorf("%+v, %v", v, err)
			}
			if n := node.count("eth_chainId"); n != trips {
				t.Errorf("verify: %d round trips, want %d", n, trips)
			}
			if s := f.Settle(context.Background(), req); s.Outcome != facilitator.Refused {
				t.Errorf("%+v", s)
			}
			if n := node.count("eth_chainId"); n != 2*trips || trips == 0 && node.total() != 0 {
				t.Errorf("settle: the node was asked %v", node.asked)
			}
		})
	}
}

// TestRoundTrips: what the documentation says of them. Settling is a look, the
// transaction, and its receipt.
func TestRoundTrips(t *testing.T) {
	file := vectors(t)
	code := map[string]string{strings.ToLower(payerAddress): "0x60"}
	find := func(scheme, name string) facilitator.Request {
		for _, r := range file.Verify {
			if r.Scheme == scheme && r.Name == name {
				return request(t, r.PaymentPayload, r.PaymentRequirements.Requirement)
			}
		}
		t.Fatalf("no row %s/%s", scheme, name)
		return facilitator.Request{}
	}
	low, no := "0", false
	for name, tt := range map[string]struct {
		r              facilitator.Request
		world          world
		verify, settle int32
	}{
		"EIP-3009":                    {find("exact eip3009", "valid EOA"), world{}, 1, 3},
		"Permit2":                     {find("exact permit2", "valid"), world{}, 1, 3},
		"upto":                        {find("upto permit2", "valid"), world{}, 1, 3},
		"EIP-7702":                    {find("exact eip3009", "valid EOA"), world{Code: code, ERC1271: true}, 2, 5}, // the first time it takes another place
		"a contract wallet":           {find("exact eip3009", "ERC-6492, wallet deployed, inner signature accepted"), world{Code: code, ERC1271: true}, 2, 5},
		"a wallet that is to be made": {find("exact eip3009", "ERC-6492, wallet not deployed, factory allowed"), world{}, 2, 5},
		"no allowance":                {find("exact permit2", "valid"), world{Sim: &no, Allowance: low}, 2, 2},
		"forged":                      {find("exact eip3009", "wrong signature"), world{}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock(file.Clock)
			node := script(t, c, tt.world)
			f, _ := start(t, baseSepolia, &Network{RPC: []string{node.URL}}, c, "0x0BA5ED0c6AA8c49038F819E587E2633c4A9F428a")
			var trips atomic.Int32
			node.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				trips.Add(1)
				node.ServeHTTP(w, r)
			})
			if _, err := f.Verify(context.Background(), tt.r); err != nil || trips.Load() != tt.verify {
				t.Errorf("verify: %d round trips, %v; want %d", trips.Load(), err, tt.verify)
			}
			trips.Store(0)
			f.chains[baseSepolia].accounts[0].sender.next = node.nonce // the first number of a process is asked for twice
			if s := f.Settle(context.Background(), tt.r); s.Outcome == facilitator.Unknown || trips.Load() != tt.settle {
				t.Errorf("settle: %d round trips, %+v; want %d", trips.Load(), s, tt.settle)
			}
		})
	}
	f, node, r, _ := at(t, world{})
	if _, err := f.Verify(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	if s := f.Settle(context.Background(), r); s.Outcome != facilitator.Settled {
		t.Fatalf("%+v", s)
	}
	if n := node.count("eth_getCode"); n != 3 {
		t.Errorf("code was asked for %d times: twice for the payer and once for the asset", n)
	}
}

// TestWalletErrors: how nodes say that a wallet's code did not end well, which is a
// no, and how they say that they did not ask it, which is none.
func TestWalletErrors(t *testing.T) {
	r, unix := good(t)
	for said, no := range map[string]bool{
		"execution reverted": true, "out of gas": true, "EVM error OutOfGas": true, "EVM error MemoryOOG": true,
		"gas required exceeds allowance (400000)": true, "VM Exception while processing transaction: revert": true,
		"EVM error InvalidFEOpcode": true, "EVM error StackOverflow": true,
		"limit exceeded": false, "EVM error: no such block": false, "header not found": false, "the method eth_call does not exist": false,
	} {
		t.Run(said, func(t *testing.T) {
			c := newClock(unix)
			node := script(t, c, world{Code: map[string]string{strings.ToLower(payerAddress): "0x60"}})
			node.override = func(method string, params []json.RawMessage) (any, *rpcError, bool) {
				wallet := method == "eth_call" && strings.Contains(string(params[0]), "0x1626ba7e")
				return nil, &rpcError{Code: -32000, Message: said}, wallet
			}
			f, _ := start(t, baseSepolia, &Network{RPC: []string{node.URL}}, c)
			v, err := f.Verify(context.Background(), r)
			if no && (err != nil || v.Reason != string(x402.CodeSignature)) || !no && err == nil {
				t.Errorf("%+v, %v", v, err)
			}
			if s := f.Settle(context.Background(), r); no != (s.Outcome == facilitator.Refused) || !no && s.Outcome != facilitator.Unsent {
				t.Errorf("%+v", s)
			}
		})
	}
}
