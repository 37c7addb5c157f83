package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// facilitator is a scripted one: it moves no money, but keeps the account of what
// would have moved. It finds every signature valid; a nonce is good once, as on
// a chain.
type facilitator struct {
	http.Server
	url string

	mu sync.Mutex
	// moved is the transaction of each nonce whose money has moved.
	moved map[string]string
	// accounts are the payers', by address in lower case.
	accounts map[string]*account
	// repeats makes it give its first answer again to a payment that comes again,
	// where it would otherwise say that the nonce is used.
	repeats bool
	// takes is how long a settlement takes.
	takes time.Duration
	// lose drops the connection after so many settlements, which have moved.
	lose int
	// refuse makes settlements fail for good.
	refuse bool
	// verifySays and settleSays, if not nil, are the bodies of 200s, whatever was
	// asked.
	verifySays, settleSays *string
}

// account counts what a payer's payments were asked about, and what has moved.
type account struct{ verified, settled, moved int }

func startFacilitator() (*facilitator, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &facilitator{url: "http://" + l.Addr().String(), moved: map[string]string{}, accounts: map[string]*account{}}
	f.ReadHeaderTimeout = time.Minute
	mux := http.NewServeMux()
	mux.HandleFunc("GET /supported", func(w http.ResponseWriter, _ *http.Request) {
		say(w, map[string]any{
			"kinds": []map[string]any{
				{"x402Version": 2, "scheme": x402.SchemeExact, "network": "eip155:84532"},
				{"x402Version": 1, "scheme": x402.SchemeExact, "network": "base-sepolia"},
			},
			"extensions": []string{}, "signers": map[string]any{},
		})
	})
	mux.HandleFunc("POST /verify", f.verify)
	mux.HandleFunc("POST /settle", f.settle)
	f.Handler = mux
	go func() { _ = f.Serve(l) }()
	return f, nil
}

func (f *facilitator) Close() error { return f.Shutdown(context.Background()) }

// script says how it is to behave from now on.
func (f *facilitator) script(change func(*facilitator)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.repeats, f.takes, f.lose, f.refuse, f.verifySays, f.settleSays = false, 0, 0, false, nil, nil
	change(f)
}

// of returns a copy of a payer's account.
func (f *facilitator) of(p payer) account {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *f.account(p.key.Address())
}

func (f *facilitator) account(address string) *account {
	address = strings.ToLower(address)
	if f.accounts[address] == nil {
		f.accounts[address] = new(account)
	}
	return f.accounts[address]
}

func (f *facilitator) verify(w http.ResponseWriter, r *http.Request) {
	payer, nonce := payment(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.account(payer).verified++
	switch {
	case f.verifySays != nil:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(*f.verifySays))
	case f.moved[nonce] != "" && !f.repeats:
		say(w, map[string]any{"isValid": false, "invalidReason": "invalid_exact_evm_nonce_already_used", "payer": payer})
	default:
		say(w, map[string]any{"isValid": true, "payer": payer})
	}
}

func (f *facilitator) settle(w http.ResponseWriter, r *http.Request) {
	payer, nonce := payment(r)
	f.mu.Lock()
	f.account(payer).settled++
	if f.settleSays != nil {
		defer f.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(*f.settleSays))
		return
	}
	takes := f.takes
	f.mu.Unlock()
	time.Sleep(takes)
	f.mu.Lock()
	defer f.mu.Unlock()
	refusal := func(reason string) {
		say(w, map[string]any{"success": false, "errorReason": reason, "transaction": "", "network": "eip155:84532", "payer": payer})
	}
	if f.refuse {
		refusal("insufficient_funds")
		return
	}
	if f.moved[nonce] != "" && !f.repeats {
		refusal("invalid_exact_evm_nonce_already_used")
		return
	}
	if f.moved[nonce] == "" {
		var tx [32]byte
		_, _ = rand.Read(tx[:]) // never fails
		f.moved[nonce] = "0x" + hex.EncodeToString(tx[:])
		f.account(payer).moved++
	}
	if f.lose > 0 {
		f.lose--
		panic(http.ErrAbortHandler)
	}
	say(w, map[string]any{"success": true, "transaction": f.moved[nonce], "network": "eip155:84532", "payer": payer})
}

// payment reads who pays, and with which nonce.
func payment(r *http.Request) (payer, nonce string) {
	var body struct {
		PaymentPayload struct {
			Payload struct {
				Authorization struct{ From, Nonce string }
			}
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return "", ""
	}
	a := body.PaymentPayload.Payload.Authorization
	return a.From, a.Nonce
}

func say(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
