package x402

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

var namesEIP3009 = []string{"from", "to", "value", "validAfter", "validBefore", "nonce"}

// readEIP3009 reads payload.authorization of exact on EVM chains:
// {from, to, value, validAfter, validBefore, nonce}, all strings.
func (a *Authorization) readEIP3009(auth, sig jsontext.Value, r Requirement, chain string) *Error {
	asset, ok := parseAddress(r.Asset)
	if !ok {
		return refuse(CodeUnsupportedAuthorization, "asset of the requirement: not an EVM address")
	}
	var m [6]jsontext.Value
	if _, err := readObject(auth, namesEIP3009, m[:]); err != nil {
		return &Error{Code: CodePaymentMalformed, Err: fmt.Errorf("authorization: %w", err)}
	}
	rd := reader{object: "authorization"}
	from := rd.address(m[0], "from")
	to := rd.address(m[1], "to")
	a.Value = rd.uint(m[2], "value")
	a.ValidAfter = seconds(rd.uint(m[3], "validAfter"))
	a.ValidBefore = seconds(rd.uint(m[4], "validBefore"))
	a.Nonce = rd.bytes32(m[5], "nonce")
	if rd.err != nil {
		return rd.err
	}
	var err *Error
	if a.Signature, err = signature(sig, CodeSignature); err != nil {
		return err
	}
	a.Kind = KindEIP3009
	a.Payer = from.checksum()
	a.To = to.spell(r.PayTo)
	a.Token = r.Asset
	a.Key = evmKey(KindEIP3009, chain, asset[:], from[:], a.Nonce[:])
	return nil
}

func (a Authorization) checkEIP3009(r Requirement, now time.Time, minLife, maxLife time.Duration) *Error {
	if !sameAddress(a.Token, r.Asset) {
		return refuse(CodeNoMatchingRequirements, "authorization for another asset")
	}
	if !sameAddress(a.To, r.PayTo) {
		return refuse(CodeRecipientMismatch, "pays somebody else")
	}
	if err := a.checkWindow(now, minLife, maxLife, CodeValidAfter, CodeValidBefore); err != nil {
		return err
	}
	if !a.paysExactly(r) {
		return refuse(CodeValueMismatch, "pays another amount")
	}
	return nil
}

// evmKey joins a claim key.
func evmKey(kind, chain string, parts ...[]byte) string {
	key := make([]byte, 0, 256)
	key = append(key, kind...)
	key = append(key, ':')
	key = append(key, chain...)
	for _, p := range parts {
		key = append(key, ':')
		key = hex.AppendEncode(key, p)
	}
	return string(key)
}
