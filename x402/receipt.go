package x402

import (
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxReceiptDepth bounds a facilitator's or server's JSON. It carries scheme
// data and schemas, so it may be deeper than a payment.
const maxReceiptDepth = 64

// Encode returns the receipt as PAYMENT-RESPONSE carries it: base64 of JSON.
// Raw members that are no JSON are left out: a receipt is for money that has
// moved or not, and is sent whatever else is wrong.
func (r Receipt) Encode() string {
	b, err := json.Marshal(r)
	if err != nil {
		r.Extensions, r.Extra = nil, nil
		b, err = json.Marshal(r, jsontext.AllowInvalidUTF8(true))
	}
	if err != nil {
		return "" // unreachable: strings and a bool are left
	}
	return base64.StdEncoding.EncodeToString(b)
}

// V1 returns the receipt as X-PAYMENT-RESPONSE carries it: the members of
// version 1, and its name for the network if it has one.
func (r Receipt) V1() Receipt {
	v1 := Receipt{
		Success: r.Success, Transaction: r.Transaction, Network: r.Network,
		Payer: r.Payer, ErrorReason: r.ErrorReason,
	}
	if name, _ := LegacyNetwork(r.Network); name != "" {
		v1.Network = name
	}
	return v1
}

// DecodeReceipt reads a receipt from a PAYMENT-RESPONSE or X-PAYMENT-RESPONSE
// header.
func DecodeReceipt(s string) (Receipt, error) {
	if len(s) > maxChallengeBytes {
		return Receipt{}, errors.New("receipt: header too long")
	}
	b, err := decodeBase64(s)
	if err != nil {
		return Receipt{}, fmt.Errorf("receipt: %w", err)
	}
	return ParseReceipt(b)
}

// ParseReceipt reads a SettleResponse: what a receipt header holds, and what
// POST /settle answers. As for the official client, success (a bool),
// transaction and network (strings, maybe empty) must be there; what else is
// null is absent, and so is what is of another type: whether money moved is worth
// knowing whatever stands beside it.
func ParseReceipt(b []byte) (Receipt, error) {
	if err := bounded(b, maxReceiptDepth); err != nil {
		return Receipt{}, fmt.Errorf("receipt: %w", err)
	}
	var w struct {
		Success      *bool          `json:"success"`
		Transaction  *string        `json:"transaction"`
		Network      *string        `json:"network"`
		Payer        jsontext.Value `json:"payer"`
		Amount       jsontext.Value `json:"amount"`
		ErrorReason  jsontext.Value `json:"errorReason"`
		ErrorMessage jsontext.Value `json:"errorMessage"`
		Extensions   jsontext.Value `json:"extensions"`
		Extra        jsontext.Value `json:"extra"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return Receipt{}, fmt.Errorf("receipt: %w", err)
	}
	if w.Success == nil || w.Transaction == nil || w.Network == nil {
		return Receipt{}, errors.New("receipt: success, transaction or network missing")
	}
	r := Receipt{
		Success: *w.Success, Transaction: *w.Transaction, Network: *w.Network,
		Extensions: notNull(w.Extensions), Extra: notNull(w.Extra),
	}
	r.Payer, _ = text(w.Payer)
	r.Amount, _ = text(w.Amount)
	r.ErrorReason, _ = text(w.ErrorReason)
	r.ErrorMessage, _ = text(w.ErrorMessage)
	return r, nil
}

// notNull returns nil for JSON null.
func notNull(v jsontext.Value) jsontext.Value {
	if v.Kind() == jsontext.KindNull {
		return nil
	}
	return v
}
