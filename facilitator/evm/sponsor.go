package evm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"math/big"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// The extensions by which a payer who has let Permit2 move nothing yet, and may
// have no gas, pays all the same.
const (
	eip2612Extension  = "eip2612GasSponsoring"
	approvalExtension = "erc20ApprovalGasSponsoring"
)

// sponsored is what a payer adds to the info of either extension.
type sponsored struct {
	From              string `json:"from"`
	Asset             string `json:"asset"`
	Spender           string `json:"spender"`
	Amount            string `json:"amount"`
	Nonce             string `json:"nonce"`
	Deadline          string `json:"deadline"`
	Signature         string `json:"signature"`
	SignedTransaction string `json:"signedTransaction"`
	Version           string `json:"version"`
}

// permit2612 is an allowance for Permit2 by signature (EIP-2612).
type permit2612 struct {
	value     uint256.Int
	deadline  uint64
	signature eip712.Signature
}

// append encodes it as the proxies take it: value, deadline, r, s, v.
func (a *permit2612) append(b []byte) []byte {
	b = appendUint256(b, &a.value)
	b = appendUint(b, a.deadline)
	b = append(b, a.signature.R[:]...)
	b = append(b, a.signature.S[:]...)
	return appendUint(b, uint64(a.signature.V))
}

// readExtensions reads what the payer signed besides the payment. An extension
// that the payer has not filled in counts as none, and so does one that we do not
// offer. Refusals are *x402.Error.
func (c *settler) readExtensions(p *payment, r facilitator.Request, now time.Time) error {
	w, ok := p.way.(*permit2)
	if !ok || len(r.Payment.Extensions) == 0 {
		return nil
	}
	var extensions map[string]jsontext.Value
	if err := json.Unmarshal(r.Payment.Extensions, &extensions); err != nil {
		return nil //nolint:nilerr // decoded before: it is an object
	}
	info, filled, err := infoOf(extensions[eip2612Extension])
	switch {
	case err != nil:
		return refuse(code2612Format, "the info of the extension is no object of strings")
	case filled && info.Nonce != "" && info.Deadline != "" && info.Signature != "":
		return w.readPermit(p, info, now)
	}
	info, filled, err = infoOf(extensions[approvalExtension])
	switch {
	case !c.sponsorsApprovals():
	case err != nil:
		return refuse(codeApprovalFormat, "the info of the extension is no object of strings")
	case filled && info.SignedTransaction != "":
		return p.readApproval(info, c.ID)
	}
	return nil
}

// infoOf reads the info of an extension, and whether it has what both of them
// need.
func infoOf(extension jsontext.Value) (info sponsored, filled bool, err error) {
	if len(extension) == 0 {
		return info, false, nil
	}
	var e struct {
		Info jsontext.Value `json:"info"`
	}
	if err := json.Unmarshal(extension, &e); err != nil {
		return info, false, err
	}
	if len(e.Info) == 0 {
		return info, false, nil
	}
	err = json.Unmarshal(e.Info, &info)
	return info, info.From != "" && info.Asset != "" && info.Spender != "" && info.Amount != "" && info.Version != "", err
}

// parties compares who is named in an extension with the payment.
func (s *sponsored) parties(p *payment, from, asset, spender x402.Code) error {
	switch {
	case !sameAddress(s.From, p.From):
		return refuse(from, "the extension is of somebody else")
	case !sameAddress(s.Asset, p.Token):
		return refuse(asset, "the extension is for another asset")
	case !sameAddress(s.Spender, eip712.Permit2):
		return refuse(spender, "the extension is not for Permit2")
	}
	return nil
}

func sameAddress(s string, a common.Address) bool {
	return len(s) == 42 && common.IsHexAddress(s) && common.HexToAddress(s) == a
}

// readPermit reads an allowance by signature. Whether the token takes it, only
// the chain can tell; the proxy passes over one that fails, since the allowance
// may be there already.
func (w *permit2) readPermit(p *payment, s sponsored, now time.Time) error {
	if !s.wellFormed(s.Signature) || !isNumber(s.Nonce) || !isNumber(s.Deadline) {
		return refuse(code2612Format, "a member of the extension is malformed")
	}
	if err := s.parties(p, code2612From, code2612Asset, code2612Spender); err != nil {
		return err
	}
	var a permit2612
	var deadline uint256.Int
	raw, err := hex.DecodeString(s.Signature[2:])
	if err == nil {
		err = errors.Join(a.value.SetFromDecimal(s.Amount), deadline.SetFromDecimal(s.Deadline))
	}
	if err == nil {
		a.signature, err = eip712.ParseSignature(raw)
	}
	switch {
	case err != nil:
		return refuse(code2612Format, "a member of the extension is malformed")
	case !deadline.IsUint64() || deadline.Uint64() > math.MaxInt64:
		return refuse(code2612Format, "the deadline is beyond all calendars")
	case deadline.Uint64() < uint64(max(0, now.Add(minLife).Unix())): // #nosec G115 -- not negative
		return refuse(code2612Deadline, "the permit ends too soon")
	case !a.value.Eq(&w.permit.Amount):
		return refuse(code2612Amount, "the permit is for another amount than the payment")
	}
	a.deadline = deadline.Uint64()
	w.allowance = &a
	return nil
}

// wellFormed checks what both extensions have in common, and the hexadecimal
// member that they do not.
func (s *sponsored) wellFormed(hexadecimal string) bool {
	digits, ok := strings.CutPrefix(hexadecimal, "0x")
	return ok && digits != "" && len(digits)%2 == 0 && isNumber(s.Amount) &&
		common.IsHexAddress(s.From) && common.IsHexAddress(s.Asset) && common.IsHexAddress(s.Spender) &&
		strings.Trim(s.Version, "0123456789.") == ""
}

// isNumber reports whether s is made of digits only, and could be a uint256.
func isNumber(s string) bool {
	return s != "" && len(s) <= 78 && strings.Trim(s, "0123456789") == ""
}

// approval is the payer's signed transaction that lets Permit2 move the token.
type approval struct {
	tx  *types.Transaction
	raw []byte
}

// The gas of an approval must lie in between: nothing changes a contract's storage
// for less, and the official client asks for 70,000.
const minApprovalGas, maxApprovalGas = 30_000, 200_000

// approveSelector is that of approve(address spender, uint256 value).
var approveSelector = [4]byte{0x09, 0x5e, 0xa7, 0xb3}

// readApproval reads the payer's transaction, in the order of the official
// facilitators. It must do nothing but approve: we hand it to the chain, and may
// pay for it.
func (p *payment) readApproval(s sponsored, id uint64) error {
	if !s.wellFormed(s.SignedTransaction) {
		return refuse(codeApprovalFormat, "a member of the extension is malformed")
	}
	if err := s.parties(p, codeApprovalFrom, codeApprovalAsset, codeApprovalSpender); err != nil {
		return err
	}
	raw, err := hex.DecodeString(s.SignedTransaction[2:])
	tx := new(types.Transaction)
	if err == nil {
		err = tx.UnmarshalBinary(raw)
	}
	if err != nil || tx.Type() != types.DynamicFeeTxType && tx.Type() != types.LegacyTxType {
		return refuse(codeApprovalParse, "this is no transaction")
	}
	data := tx.Data()
	switch {
	case tx.To() == nil || *tx.To() != p.Token:
		return refuse(codeApprovalTarget, "the transaction is not for the token")
	case !bytes.HasPrefix(data, approveSelector[:]):
		return refuse(codeApprovalSelector, "the transaction does not approve")
	case len(data) != 4+2*32:
		return refuse(codeApprovalCalldata, "the transaction is no plain call of approve")
	case common.Hash(data[4:36]) != chain.AddressTopic(eip712.Permit2):
		return refuse(codeApprovalTxSpender, "the transaction does not approve Permit2")
	case new(big.Int).SetBytes(data[36:]).Cmp(p.Authorization.Value.ToBig()) < 0:
		return refuse(codeApprovalCalldata, "the transaction approves less than the payment")
	case tx.Value().Sign() != 0 || tx.Gas() > maxApprovalGas || len(tx.AccessList()) != 0:
		return refuse(codeApprovalCalldata, "the transaction does more than to approve")
	case tx.Gas() < minApprovalGas:
		return refuse(codeApprovalFailed, "the transaction has too little gas")
	}
	signer := types.LatestSignerForChainID(new(big.Int).SetUint64(id))
	if !tx.Protected() || tx.ChainId().Cmp(signer.ChainID()) != 0 {
		return refuse(codeApprovalSigner, "the transaction is for another chain")
	}
	from, err := types.Sender(signer, tx)
	switch {
	case err != nil:
		return refuse(codeApprovalSignature, "nobody has signed the transaction")
	case from != p.From:
		return refuse(codeApprovalSigner, "the transaction is of somebody else")
	}
	p.approval = &approval{tx: tx, raw: raw}
	return nil
}
