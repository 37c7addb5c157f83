package evm

import (
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// Selectors, see EIP-3009. The second form of the transfer is that of
// tokens which take signatures of contract wallets.
var (
	transferSelector      = [4]byte{0xe3, 0xee, 0x16, 0x0e} // transferWithAuthorization(…, uint8 v, bytes32 r, bytes32 s)
	transferBytesSelector = [4]byte{0xcf, 0x09, 0x29, 0x95} // transferWithAuthorization(…, bytes signature)
)

// eip3009 is the transfer with authorization of the token itself.
type eip3009 struct{ transfer eip712.Transfer }

// settlesEIP3009 is for a payment that the token itself moves.
func (p *payment) settlesEIP3009(r x402.Requirement) error {
	t, err := eip712.TransferOf(p.Authorization)
	if err != nil {
		return errBeyond()
	}
	p.way = &eip3009{t}
	// Who only looks for what became of the payment needs no domain.
	if domain, err := eip712.DomainOf(r); err == nil {
		p.digest = domain.TransferDigest(&t)
	}
	return nil
}

func (w *eip3009) codes() codes {
	return codes{signature: x402.CodeSignature, transaction: codeTransaction}
}

// call encodes transferWithAuthorization(from, to, value, validAfter,
// validBefore, nonce, …), with the signature in three parts or, if it has not 65
// bytes, in one piece.
func (w *eip3009) call(p *payment) (common.Address, []byte) {
	t := &w.transfer
	b := make([]byte, 0, 4+9*32+len(p.signature))
	split := len(p.signature) == crypto.SignatureLength
	if split {
		b = append(b, transferSelector[:]...)
	} else {
		b = append(b, transferBytesSelector[:]...)
	}
	b = appendAddress(b, t.From)
	b = appendAddress(b, t.To)
	b = appendUint256(b, &t.Value)
	b = appendUint(b, t.ValidAfter)
	b = appendUint(b, t.ValidBefore)
	b = append(b, t.Nonce[:]...)
	if !split {
		b = appendUint(b, 7*32)
		return p.Token, appendBytes(b, p.signature)
	}
	b = appendUint(b, uint64(p.signature[64]))
	return p.Token, append(b, p.signature[:64]...)
}

// The questions of a diagnosis, in the order in which they are asked.
const (
	askedBalance = iota
	askedName
	askedVersion
	askedState
)

func (w *eip3009) questions(p *payment) []call3 {
	return []call3{
		askedBalance: {p.Token, chain.Pack("balanceOf", p.From)},
		askedName:    {p.Token, chain.Pack("name")},
		askedVersion: {p.Token, chain.Pack("version")},
		askedState:   {p.Token, p.AskUsed()},
	}
}

// reason is the code for what a diagnosis found, the first that applies. What a
// token does not tell is not held against the payment.
func (w *eip3009) reason(p *payment, r x402.Requirement, found []result3) x402.Code {
	var extra struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	_ = json.Unmarshal(r.Extra, &extra) // read before, or there were no domain
	used, ok := p.ReadUsed(found[askedState].ReturnData, found[askedState].Success)
	if !ok {
		return codeNotEIP3009
	}
	if used {
		return chain.CodeNonceUsed
	}
	if name, ok := value[string](found[askedName], "name"); ok && name != extra.Name {
		return codeTokenName
	}
	if version, ok := value[string](found[askedVersion], "version"); ok && version != extra.Version {
		return codeTokenVersion
	}
	if balance, ok := value[*big.Int](found[askedBalance], "balanceOf"); ok && balance.Cmp(p.Value.ToBig()) < 0 {
		return codeBalance
	}
	return codeSimulation
}
