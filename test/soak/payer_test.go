package soak

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// habit is what a client does when it is told neither yes nor no.
type habit struct {
	again   int           // how often it sends the same payment again before it signs anew
	patient bool          // it waits as long as Retry-After says
	timeout time.Duration // how long it waits for an answer; 0: long
	rude    bool          // it closes the connection when it hangs up; see hangUp
}

// Stock clients do not know 503: to whoever drives them, one call has failed,
// and the next call signs anew. Better ones send the same payment again.
var (
	stock   = habit{patient: true}
	hasty   = habit{}
	careful = habit{again: 4, patient: true}
)

// purchase is what a client wants once: one path, of which there is no other
// purchase, so that everything signed for it can be told apart.
type purchase struct {
	w      *world
	key    *ecdsa.PrivateKey
	method string
	path   string
	body   string // of a POST; default: one for the path
	habit  habit
	script *script // how the remote facilitator behaves

	nonces []common.Hash
	got    int // how often the goods came
	// unconfirmed: it was told that nobody knows whether its order was done.
	unconfirmed bool
	left        []time.Time // when its client hung up and closed the connection
	faults      []string    // what must not happen
	refusal     []refusal   // 402s after money has moved
	story       []string    // what happened, for when something did

	draining *sync.WaitGroup
	unseen   *atomic.Int32 // how often the goods came to a client that no longer looked
}

// refusal is a 402 at a time when payments for the purchase had moved money. Each
// of them must have been delivered.
type refusal struct {
	text  string
	moved int
}

func (w *world) purchase(p purchase) *purchase {
	p.w, p.draining, p.unseen = w, new(sync.WaitGroup), new(atomic.Int32)
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.path == "" {
		p.path = fmt.Sprintf("/paid/%d", len(w.purchases))
	}
	if p.method == "" {
		p.method = http.MethodGet
	}
	if p.key == nil {
		keys := w.payers()
		p.key = keys[len(w.purchases)%len(keys)]
	}
	w.purchases = append(w.purchases, &p)
	return &p
}

func (p *purchase) payer() common.Address { return crypto.PubkeyToAddress(p.key.PublicKey) }

// tell adds to the story. Of many tries the first and the last are enough.
func (p *purchase) tell(format string, args ...any) {
	const most = 40
	p.story = append(p.story, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
	if len(p.story) > most {
		p.story[most/2] = "..."
		p.story = append(p.story[:most/2+1], p.story[most/2+2:]...)
	}
}

func (p *purchase) fault(format string, args ...any) {
	p.tell("FAULT: "+format, args...)
	p.faults = append(p.faults, fmt.Sprintf(format, args...))
}

// header is a payment, ready to be sent.
type header struct{ name, value string }

// signed is a payment before it is spelled.
type signed struct {
	nonce         common.Hash
	version       int
	accepted      json.RawMessage
	authorization map[string]string
	signature     string
}

// sign signs what a challenge asks for.
func (p *purchase) sign(version int, ch x402.Challenge) (*signed, error) {
	if len(ch.Accepts) != 1 {
		return nil, fmt.Errorf("%d offers", len(ch.Accepts))
	}
	r := ch.Accepts[0]
	if r.Amount != strconv.Itoa(amount) || !strings.EqualFold(r.PayTo, p.w.payee.Hex()) {
		return nil, fmt.Errorf("asked for %s to %s", r.Amount, r.PayTo)
	}
	domain, err := eip712.DomainOf(r)
	if err != nil {
		return nil, err
	}
	t := eip712.Transfer{From: p.payer(), To: p.w.payee, ValidBefore: uint64(time.Now().Unix()) + uint64(r.MaxTimeoutSeconds)} //nolint:gosec // small
	t.Value.SetUint64(amount)
	_, _ = rand.Read(t.Nonce[:])
	digest := domain.TransferDigest(&t)
	sig, err := crypto.Sign(digest[:], p.key)
	if err != nil {
		return nil, err
	}
	sig[64] += 27
	if p.script != nil {
		p.w.remote.misbehave(t.Nonce, p.script)
	}
	p.nonces = append(p.nonces, t.Nonce)
	return &signed{
		nonce: t.Nonce, version: version, accepted: json.RawMessage(ch.RawAccepts[0]), signature: hexutil.Encode(sig),
		authorization: map[string]string{
			"from": t.From.Hex(), "to": t.To.Hex(), "value": t.Value.Dec(), "validAfter": "0",
			"validBefore": strconv.FormatUint(t.ValidBefore, 10), "nonce": hexutil.Encode(t.Nonce[:]),
		},
	}, nil
}

// object is what a payment's header holds.
func (s *signed) object() map[string]any {
	payload := map[string]any{"signature": s.signature, "authorization": s.authorization}
	if s.version == x402.V1 {
		return map[string]any{"x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": payload}
	}
	return map[string]any{"x402Version": 2, "accepted": s.accepted, "payload": payload}
}

func (s *signed) name() string {
	if s.version == x402.V1 {
		return x402.HeaderXPayment
	}
	return x402.HeaderPaymentSignature
}

func (s *signed) header() header {
	raw, _ := json.Marshal(s.object())
	return header{s.name(), base64.StdEncoding.EncodeToString(raw)}
}

// answer is an answer, read to its end.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	broken  error  // the body did not come to its end
	code    string // why not, if not
	receipt *x402.Receipt
}

// request sends the purchase's request, with a payment or without.
func (p *purchase) request(ctx context.Context, c *http.Client, origin string, h header) (*answer, error) {
	if p.habit.timeout > 0 {
		return p.hangUp(ctx, origin, h)
	}
	a, err := p.exchange(ctx, c, origin, h)
	if err == nil && a.broken != nil && a.has(goods(p.path)) {
		p.unseen.Add(1) // all but the mark of its end, which was cut off
	}
	return a, err
}

// has says whether the answer is these goods, whether or not it came to an end.
func (a *answer) has(goods string) bool {
	return a.status >= 200 && a.status < 300 && string(a.body) == goods
}

// exchange sends a request and reads the answer.
func (p *purchase) exchange(ctx context.Context, c *http.Client, origin string, h header) (*answer, error) {
	var body io.Reader
	if p.method == http.MethodPost {
		body = strings.NewReader(cmp.Or(p.body, "order of "+p.path))
	}
	req, err := http.NewRequestWithContext(ctx, p.method, origin+p.path, body)
	if err != nil {
		return nil, err
	}
	req.Host = "localhost" // one shop, whatever gateway is asked
	if h.name != "" {
		req.Header[h.name] = []string{h.value}
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a := &answer{status: resp.StatusCode, header: resp.Header}
	a.body, a.broken = io.ReadAll(resp.Body)
	var said struct{ Error string }
	if ch, err := x402.DecodeChallenge(resp.Header.Get(x402.HeaderPaymentRequired)); err == nil {
		a.code = ch.Error
	} else if json.Unmarshal(a.body, &said) == nil {
		a.code = said.Error
	}
	for _, name := range []string{x402.HeaderPaymentResponse, x402.HeaderXPaymentResponse} {
		if r, err := x402.DecodeReceipt(resp.Header.Get(name)); err == nil {
			a.receipt = &r
		}
	}
	return a, nil
}

var errGoods = errors.New("goods without payment")
