//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/go-json-experiment/json"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// wallet is an account with a key.
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

func addresses(wallets []*wallet) (list []common.Address) {
	for _, w := range wallets {
		list = append(list, w.address)
	}
	return list
}

// signer makes payments for one offer.
type signer struct {
	host   string
	offer  x402.Requirement
	domain eip712.Domain
	value  uint256.Int
}

func newSigner(g *gateway) (*signer, error) {
	domain, err := eip712.DomainOf(g.offer)
	if err != nil {
		return nil, err
	}
	value, err := uint256.FromDecimal(g.offer.Amount)
	if err != nil {
		return nil, err
	}
	return &signer{host: g.address, offer: g.offer, domain: domain, value: *value}, nil
}

// request is one HTTP request with a payment that was never seen. The payer may be
// a contract that takes the word of the wallet; else it is the wallet itself.
func (s *signer) request(w *wallet, payer common.Address, from net.IP) ([]byte, error) {
	t := eip712.Transfer{
		From: payer, To: common.HexToAddress(s.offer.PayTo), Value: s.value,
		ValidBefore: uint64(time.Now().Unix()) + uint64(s.offer.MaxTimeoutSeconds),
	}
	_, _ = rand.Read(t.Nonce[:]) // never fails
	digest := s.domain.TransferDigest(&t)
	signature, err := crypto.Sign(digest[:], w.key)
	if err != nil {
		return nil, err
	}
	signature[64] += 27
	accepted, err := json.Marshal(s.offer)
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(map[string]any{
		"signature": "0x" + hex.EncodeToString(signature),
		"authorization": map[string]string{
			"from": payer.Hex(), "to": s.offer.PayTo, "value": s.offer.Amount,
			"validAfter": "0", "validBefore": strconv.FormatUint(t.ValidBefore, 10),
			"nonce": "0x" + hex.EncodeToString(t.Nonce[:]),
		},
	})
	if err != nil {
		return nil, err
	}
	name, header, err := x402.EncodePayment(&x402.Payment{Version: x402.V2, Scheme: s.offer.Scheme, Network: s.offer.Network, Accepted: accepted, Payload: payload})
	if err != nil {
		return nil, err
	}
	const body = "{}"
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nX-Forwarded-For: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s: %s\r\n\r\n%s",
		goods, s.host, from, len(body), name, header, body), nil
}

// client is who pays, once.
type client struct {
	*wallet
	request []byte
	regular bool // has paid before
	result
}

// result is what became of a client.
type result struct {
	sent    time.Time
	head    uint64 // the chain's last block then
	took    time.Duration
	tries   int
	number  int // what he got; 0 is nothing
	hash    common.Hash
	told    string // the last answer that was not his number
	waiting bool   // which was to come again
	inDoubt bool   // and that his payment may be on its way
}

// fetchFor is how much longer a payer asks whose payment may be on its way.
const fetchFor = time.Minute

// addressIn is an address of a client network, of those that nobody has.
func addressIn(network, host int) net.IP {
	return net.IPv4(byte(100+network>>16), byte(network>>8), byte(network), byte(1+host%250))
}

// newClients makes payers, spread over client networks, with their payments signed.
func (r *rush) newClients(s *signer, wallets []*wallet) ([]*client, error) {
	clients, errs := make([]*client, len(wallets)), make([]error, len(wallets))
	var wg sync.WaitGroup
	workers := runtime.NumCPU()
	for n := range workers {
		wg.Go(func() {
			for i := n; i < len(clients); i += workers {
				w := wallets[i]
				clients[i] = &client{wallet: w}
				clients[i].request, errs[i] = s.request(w, w.address, addressIn(i%r.networks, i/r.networks))
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return clients, nil
}

// pay sends the payment until it has bought something, or is refused, or too old.
// Whoever is told to wait waits as long as that, and up to half as long again: else
// those who were told at one moment would come back at one.
func (c *client) pay(ctx context.Context, r *rush, until time.Time) {
	c.sent, c.head = time.Now(), r.chain.head.Load()
	defer func() { c.took = time.Since(c.sent) }()
	var l *line
	defer func() { l.close() }()
	for ctx.Err() == nil {
		c.tries++
		a, err := answer{}, error(nil)
		if l == nil {
			l, err = dial(r.gateway.address)
		}
		if err == nil {
			r.asking.Add(1)
			a, err = l.send(c.request)
			r.asking.Add(-1)
		}
		wait := time.Second
		switch {
		case err != nil:
			l.close()
			l = nil
			c.told, c.waiting = err.Error(), false
		case a.number > 0:
			c.number, c.hash = a.number, a.transaction
			return
		case a.retryAfter <= 0:
			c.told, c.waiting = a.says, false
			return
		default:
			c.told, c.waiting, c.inDoubt = a.says, true, strings.HasSuffix(a.says, string(x402.CodeSettlementPending))
			wait = seconds(a.retryAfter)
		}
		wait += mathrand.N(wait / 2)
		last := until
		if c.inDoubt {
			last = last.Add(fetchFor)
		}
		if time.Now().Add(wait).After(last) {
			return
		}
		if r.drive.hangUp {
			l.close()
			l = nil
		}
		pause(ctx, wait)
	}
}

// answer is what the gateway said.
type answer struct {
	number      int
	transaction common.Hash
	retryAfter  int
	says        string // status and code
}

// line is a connection. It is cheaper than net/http's client, which would take its
// time from the gateway on a small machine.
type line struct {
	conn net.Conn
	in   *bufio.Reader
}

func dial(address string) (*line, error) {
	c, err := net.DialTimeout("tcp", address, seconds(30))
	if err != nil {
		return nil, err
	}
	return &line{c, bufio.NewReader(c)}, nil
}

func (l *line) close() {
	if l != nil {
		_ = l.conn.Close()
	}
}

func (l *line) send(request []byte) (a answer, err error) {
	_ = l.conn.SetDeadline(time.Now().Add(seconds(60)))
	if _, err := l.conn.Write(request); err != nil {
		return a, err
	}
	res, err := http.ReadResponse(l.in, nil)
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, math.MaxUint16))
	if err != nil {
		return a, err
	}
	if res.StatusCode != http.StatusOK {
		a.says = fmt.Sprintf("%d %s", res.StatusCode, codeOf(res, body))
		a.retryAfter, _ = strconv.Atoi(res.Header.Get("Retry-After"))
		return a, nil
	}
	receipt, err := x402.DecodeReceipt(res.Header.Get(x402.HeaderPaymentResponse))
	if err != nil {
		return a, err
	}
	var got struct {
		Number int `json:"number"`
	}
	if err := json.Unmarshal(body, &got); err != nil || got.Number <= 0 || !receipt.Success {
		return a, fmt.Errorf("no number and receipt, but %q", body)
	}
	return answer{number: got.Number, transaction: common.HexToHash(receipt.Transaction)}, nil
}

// codeOf is why the gateway sells nothing.
func codeOf(res *http.Response, body []byte) string {
	if c, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired)); err == nil {
		return c.Error
	}
	var said struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &said) != nil || said.Error == "" {
		return string(body)
	}
	return said.Error
}
