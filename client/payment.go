package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// maxPaymentHeader is the longest payment that is sent. Node servers read 16 kB
// of headers in all.
const maxPaymentHeader = 12 << 10

// Payment is one payment: what is, or was, signed for one request.
type Payment struct {
	// Challenge and Offer are what the seller asked for.
	Challenge *Challenge
	Offer     Offer
	// Payer is the account that pays; "" without a key.
	Payer string
	// Transfer is the message that is signed, unless the offer is for Permit2: then
	// Permit is.
	Transfer eip712.Transfer
	Permit   eip712.Permit

	request   *http.Request // the one that was refused
	sponsored *extension    // the approval that travels along; may be nil
	signed    *signedHeader // nil before it is signed
}

// signedHeader is behind a pointer so that printing a payment does not show it.
type signedHeader struct{ name, value string }

// backdate is how long ago authorizations of version 1 become valid, as with
// the official client. Those of version 2 always were.
const backdate = 600

// draft makes the payment that would be signed for an offer.
func (c *Client) draft(ch *Challenge, o Offer, refused *http.Request) (*Payment, error) {
	now := c.now().Unix()
	if now <= backdate {
		return nil, errors.New("the clock is wrong: it says 1970")
	}
	p := &Payment{Challenge: ch, Offer: o, request: refused}
	end := uint64(now) + uint64(o.Requirement.MaxTimeoutSeconds) //nolint:gosec // both are checked
	var nonce [32]byte
	if _, err := io.ReadFull(c.random(), nonce[:]); err != nil {
		return nil, fmt.Errorf("making a nonce: %w", err)
	}
	var payer common.Address
	if c.Key != nil {
		p.Payer, payer = c.Key.Address(), c.Key.address
	}
	if o.permit2 {
		p.Permit = o.permit(payer, nonce, end)
		return p, nil
	}
	p.Transfer = eip712.Transfer{From: payer, To: o.payTo, Value: o.amount, ValidBefore: end, Nonce: nonce}
	if ch.Version == x402.V1 {
		p.Transfer.ValidAfter = uint64(now - backdate)
	}
	return p, nil
}

// ValidBefore is when the signature ends: nobody can use it later.
func (p *Payment) ValidBefore() time.Time {
	if p.Offer.permit2 {
		return time.Unix(int64(p.Permit.Deadline), 0) //nolint:gosec // made by draft
	}
	return time.Unix(int64(p.Transfer.ValidBefore), 0) //nolint:gosec // made by draft
}

// sign signs the payment, and looks at the result with the eyes of a seller.
func (p *Payment) sign(k *Key) error {
	signature, err := k.sign(p.digest())
	if err != nil {
		return err
	}
	h, err := p.encode(signature)
	if err != nil {
		return err
	}
	if len(h.value) > maxPaymentHeader {
		return unpayable("the payment would be too long to send: %d bytes", len(h.value))
	}
	if err := p.verify(h); err != nil {
		return unpayable("what would be sent is not what was asked for: %w", err)
	}
	p.signed = h
	return nil
}

func (p *Payment) digest() [32]byte {
	if p.Offer.permit2 {
		return eip712.Permit2Domain(p.Offer.chainID).PermitDigest(&p.Permit)
	}
	return p.Offer.domain().TransferDigest(&p.Transfer)
}

// verify reads what would be sent, and checks that it pays the offer and nothing
// else: the last line of defence against our own mistakes.
func (p *Payment) verify(h *signedHeader) error {
	sent, err := x402.Decode(http.Header{h.name: {h.value}})
	if err != nil {
		return err
	}
	r := p.Offer.Requirement
	if _, err := x402.Match(sent, []x402.Requirement{r}); err != nil {
		return err
	}
	a, err := sent.Authorization(r)
	if err != nil {
		return err
	}
	if signed, err := eip712.SignedByPayer(a, r); err != nil || !signed {
		return errors.Join(errors.New("the signature does not fit"), err)
	}
	// The clock of the draft: at its end a second of life is left.
	return a.Check(r, p.ValidBefore().Add(-time.Second), 0, time.Second)
}

// payload is the scheme's object: exact on EVM chains, by EIP-3009.
type payload struct {
	Authorization authorization `json:"authorization"`
	Signature     string        `json:"signature"`
}

type authorization struct {
	From        string `json:"from"`
	To          string `json:"to"`
	Value       string `json:"value"`
	ValidAfter  string `json:"validAfter"`
	ValidBefore string `json:"validBefore"`
	Nonce       string `json:"nonce"`
}

func (p *Payment) authorization() authorization {
	t := p.Transfer
	return authorization{
		From: t.From.Hex(), To: t.To.Hex(), Value: t.Value.Dec(), Nonce: hexutil.Encode(t.Nonce[:]),
		ValidAfter: strconv.FormatUint(t.ValidAfter, 10), ValidBefore: strconv.FormatUint(t.ValidBefore, 10),
	}
}

// encode makes the header. What an echo of the seller's extensions would make
// too long, or too deep to be read, goes without: no seller may insist on it.
func (p *Payment) encode(signature []byte) (*signedHeader, error) {
	var paid any = payload{p.authorization(), hexutil.Encode(signature)}
	if p.Offer.permit2 {
		paid = permitPayload{p.permitAuthorization(), hexutil.Encode(signature)}
	}
	raw, err := json.Marshal(paid)
	if err != nil {
		return nil, fmt.Errorf("encoding the payment: %w", err)
	}
	e := &x402.Payment{
		Version: p.Challenge.Version, Scheme: p.Offer.Requirement.Scheme, Network: p.Offer.Requirement.Network,
		Payload: raw, Accepted: p.Offer.raw, Resource: p.Challenge.resource,
	}
	if e.Extensions, err = p.echo(false); err != nil {
		return nil, fmt.Errorf("encoding the payment: %w", err)
	}
	name, value, err := x402.EncodePayment(e)
	if err == nil && !sendable(name, value) {
		e.Resource = nil
		if e.Extensions, err = p.echo(true); err == nil {
			name, value, err = x402.EncodePayment(e)
		}
	}
	if err != nil {
		return nil, err
	}
	return &signedHeader{name, value}, nil
}

// sendable reports whether servers can be expected to read the header. Schemas
// in extensions (of bodies, for bazaar) nest deeper than payments do.
func sendable(name, value string) bool {
	_, err := x402.Decode(http.Header{name: {value}})
	return err == nil && len(value) <= maxPaymentHeader
}

// TypedData is what is signed, as wallets show it (EIP-712).
type TypedData struct {
	Domain struct {
		Name              string `json:"name"`
		Version           string `json:"version,omitzero"`
		ChainID           uint64 `json:"chainId"`
		VerifyingContract string `json:"verifyingContract"`
	} `json:"domain"`
	PrimaryType string         `json:"primaryType"`
	Message     jsontext.Value `json:"message"`
}

// TypedData returns what is signed.
func (p *Payment) TypedData() TypedData {
	if p.Offer.permit2 {
		return p.permitTypedData()
	}
	d := TypedData{PrimaryType: "TransferWithAuthorization"}
	d.Domain.Name, d.Domain.Version = p.Offer.name, p.Offer.version
	d.Domain.ChainID, d.Domain.VerifyingContract = p.Offer.chainID, p.Offer.token.Hex()
	d.Message, _ = json.Marshal(p.authorization()) // strings alone
	return d
}

// Preview returns the header that would carry the payment, and the JSON object
// in it, with an empty signature.
func (p *Payment) Preview() (header string, object jsontext.Value, err error) {
	h, err := p.encode(nil)
	if err != nil {
		return "", nil, err
	}
	sent, err := x402.Decode(http.Header{h.name: {h.value}})
	if err != nil {
		return "", nil, err
	}
	return h.name, sent.Raw, nil
}
