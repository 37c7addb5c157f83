//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/go-json-experiment/json"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// wallet is a payer.
type wallet struct {
	key     *ecdsa.PrivateKey
	address common.Address
}

func newWallets(n int) []*wallet {
	wallets := make([]*wallet, n)
	for i := range wallets {
		key, err := crypto.GenerateKey()
		if err != nil {
			panic(err) // no randomness
		}
		wallets[i] = &wallet{key, crypto.PubkeyToAddress(key.PublicKey)}
	}
	return wallets
}

// sign makes n requests for the goods, complete with their payments, of which no
// two are the same. A gateway that does not sell gets payments for another.
func (b *bench) sign(g *gateway, n int) ([][]byte, error) {
	offer := g.offer
	if !g.sells {
		offer = b.targets[0].offer
	}
	requests, errs := make([][]byte, n), make([]error, n)
	var wg sync.WaitGroup
	workers := runtime.NumCPU()
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				requests[i], errs[i] = b.wallets[i%len(b.wallets)].request(g.address, offer)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	runtime.GC() // now, and not while the gateway is measured
	return requests, nil
}

// request is one HTTP request with a payment that was never seen, for goods that
// nobody else buys: a ledger that gateways share lets a payer buy the same thing
// only when it has recorded that the one before has arrived.
func (w *wallet) request(host string, r x402.Requirement) ([]byte, error) {
	domain, err := eip712.DomainOf(r)
	if err != nil {
		return nil, err
	}
	value, err := uint256.FromDecimal(r.Amount)
	if err != nil {
		return nil, err
	}
	t := eip712.Transfer{
		From: w.address, To: common.HexToAddress(r.PayTo), Value: *value,
		ValidBefore: uint64(time.Now().Unix()) + uint64(r.MaxTimeoutSeconds),
	}
	_, _ = rand.Read(t.Nonce[:]) // never fails
	digest := domain.TransferDigest(&t)
	signature, err := crypto.Sign(digest[:], w.key)
	if err != nil {
		return nil, err
	}
	signature[64] += 27
	accepted, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(map[string]any{
		"signature": "0x" + hex.EncodeToString(signature),
		"authorization": map[string]string{
			"from": w.address.Hex(), "to": r.PayTo, "value": r.Amount,
			"validAfter": "0", "validBefore": strconv.FormatUint(t.ValidBefore, 10),
			"nonce": "0x" + hex.EncodeToString(t.Nonce[:]),
		},
	})
	if err != nil {
		return nil, err
	}
	name, header, err := x402.EncodePayment(&x402.Payment{Version: x402.V2, Scheme: r.Scheme, Network: r.Network, Accepted: accepted, Payload: payload})
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "GET %s%x HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n%s: %s\r\n\r\n", goods, t.Nonce[:8], host, name, header), nil
}
