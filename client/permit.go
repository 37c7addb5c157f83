package client

import (
	"strconv"

	"github.com/ethereum/go-ethereum/common"
	"github.com/go-json-experiment/json"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// permit is the message by which a payer lets the proxy of the offer's scheme
// move the token through Permit2.
func (o *Offer) permit(payer common.Address, nonce [32]byte, deadline uint64) eip712.Permit {
	p := eip712.Permit{
		From: payer, Token: o.token, To: o.payTo, Amount: o.amount, Deadline: deadline,
		Spender: common.HexToAddress(x402.ExactPermit2Proxy),
		Nonce:   *new(uint256.Int).SetBytes32(nonce[:]),
	}
	if o.Upto() {
		p.Upto, p.Facilitator = true, o.facilitator
		p.Spender = common.HexToAddress(x402.UptoPermit2Proxy)
	}
	return p
}

// permitPayload is the scheme's object: exact and upto on EVM chains, by Permit2.
type permitPayload struct {
	Authorization permitAuthorization `json:"permit2Authorization"`
	Signature     string              `json:"signature"`
}

type permitAuthorization struct {
	From      string        `json:"from,omitzero"`
	Permitted permitted     `json:"permitted"`
	Spender   string        `json:"spender"`
	Nonce     string        `json:"nonce"`
	Deadline  string        `json:"deadline"`
	Witness   permitWitness `json:"witness"`
}

type permitted struct {
	Token  string `json:"token"`
	Amount string `json:"amount"`
}

type permitWitness struct {
	To          string `json:"to"`
	Facilitator string `json:"facilitator,omitzero"`
	ValidAfter  string `json:"validAfter"`
}

func (p *Payment) permitAuthorization() permitAuthorization {
	m := p.Permit
	a := permitAuthorization{
		From: m.From.Hex(), Permitted: permitted{m.Token.Hex(), m.Amount.Dec()}, Spender: m.Spender.Hex(),
		Nonce: m.Nonce.Dec(), Deadline: strconv.FormatUint(m.Deadline, 10),
		Witness: permitWitness{To: m.To.Hex(), ValidAfter: strconv.FormatUint(m.ValidAfter, 10)},
	}
	if m.Upto {
		a.Witness.Facilitator = m.Facilitator.Hex()
	}
	return a
}

func (p *Payment) permitTypedData() TypedData {
	d := TypedData{PrimaryType: "PermitWitnessTransferFrom"}
	d.Domain.Name, d.Domain.ChainID, d.Domain.VerifyingContract = "Permit2", p.Offer.chainID, eip712.Permit2.Hex()
	message := p.permitAuthorization()
	message.From = ""                    // it signs, and is not signed
	d.Message, _ = json.Marshal(message) // strings alone
	return d
}
