package x402

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

var (
	namesPermit2   = []string{"from", "permitted", "spender", "nonce", "deadline", "witness"}
	namesPermitted = []string{"token", "amount"}
	namesWitness   = []string{"to", "validAfter", "facilitator"}
)

// readPermit2 reads payload.permit2Authorization of exact and upto:
// {from, permitted: {token, amount}, spender, nonce, deadline, witness: {to,
// validAfter}}, all leaves strings. The witness of upto has a facilitator too.
func (a *Authorization) readPermit2(auth, sig jsontext.Value, r Requirement, chain string) *Error {
	var m [6]jsontext.Value
	var permitted [2]jsontext.Value
	var witness [3]jsontext.Value
	_, err := readObject(auth, namesPermit2, m[:])
	if err == nil {
		_, err = readObject(m[1], namesPermitted, permitted[:])
	}
	if err == nil {
		_, err = readObject(m[5], namesWitness, witness[:])
	}
	if err != nil {
		return &Error{Code: CodePaymentMalformed, Err: fmt.Errorf("permit2Authorization: %w", err)}
	}
	rd := reader{object: "permit2Authorization"}
	from := rd.address(m[0], "from")
	token := rd.address(permitted[0], "permitted.token")
	a.Value = rd.uint(permitted[1], "permitted.amount")
	spender := rd.address(m[2], "spender")
	nonce := rd.uint(m[3], "nonce")
	a.ValidBefore = seconds(rd.uint(m[4], "deadline"))
	to := rd.address(witness[0], "witness.to")
	a.ValidAfter = seconds(rd.uint(witness[1], "witness.validAfter"))
	if r.Scheme == SchemeUpto {
		f := rd.address(witness[2], "witness.facilitator")
		ours, _ := extraText(r, "facilitatorAddress")
		a.Facilitator = f.spell(ours)
	}
	if rd.err != nil {
		return rd.err
	}
	var e *Error
	if a.Signature, e = signature(sig, CodePermit2Signature); e != nil {
		return e
	}
	a.Kind = KindPermit2
	a.Nonce = nonce.Bytes32()
	a.Payer = from.checksum()
	a.To = to.spell(r.PayTo)
	a.Token = token.spell(r.Asset)
	a.Spender = spender.spell(permit2Proxy(r.Scheme))
	// Permit2 has one nonce space for each owner, whatever the token.
	a.Key = evmKey(KindPermit2, chain, from[:], a.Nonce[:])
	return nil
}

// permit2Proxy returns who has to be the spender.
func permit2Proxy(scheme string) string {
	if scheme == SchemeUpto {
		return UptoPermit2Proxy
	}
	return ExactPermit2Proxy
}

func (a Authorization) checkPermit2(r Requirement, now time.Time, minLife, maxLife time.Duration) *Error {
	if !sameAddress(a.Spender, permit2Proxy(r.Scheme)) {
		return refuse(CodePermit2Spender, "spender is not the official proxy")
	}
	if !sameAddress(a.To, r.PayTo) {
		return refuse(CodePermit2Recipient, "pays somebody else")
	}
	if r.Scheme == SchemeUpto {
		if ours, _ := extraText(r, "facilitatorAddress"); !sameAddress(a.Facilitator, ours) {
			return refuse(CodeUptoFacilitator, "names another facilitator")
		}
	}
	if err := a.checkWindow(now, minLife, maxLife, CodePermit2NotYetValid, CodePermit2Deadline); err != nil {
		return err
	}
	if !a.paysExactly(r) {
		return refuse(CodePermit2Amount, "pays another amount")
	}
	if !sameAddress(a.Token, r.Asset) {
		return refuse(CodePermit2Token, "pays in another token")
	}
	return nil
}
