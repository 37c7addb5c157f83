package evm

import (
	"bytes"
	"errors"
	"slices"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/common"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// signer is who has to say whether a signature is good. The contracts ask the
// code of the payer if there is any, and never fall back to the key, which holds
// for EIP-7702 accounts too; only without code the key decides.
type signer int

const (
	// byKey: the key of the payer's address has signed.
	byKey signer = iota
	// byContract: it has not, or the payer has code; then the code must say yes
	// (ERC-1271).
	byContract
	// byFactory: the payer is a contract that is made in the same transaction
	// (ERC-6492).
	byFactory
)

// magic6492 is what the signatures of wallets end with that may not exist yet.
var magic6492 = bytes.Repeat([]byte{0x64, 0x92}, 16)

// magic1271 is the yes of a contract wallet, as the whole word that it returns.
var magic1271 = common.RightPadBytes([]byte{0x16, 0x26, 0xba, 0x7e}, 32)

// deployment is the call that makes a wallet. The payer has chosen all of it.
type deployment struct {
	factory common.Address
	data    []byte
}

// wrapped6492 is what an ERC-6492 signature consists of.
var wrapped6492 = func() abi.Arguments {
	address, err1 := abi.NewType("address", "", nil)
	some, err2 := abi.NewType("bytes", "", nil)
	if err := errors.Join(err1, err2); err != nil {
		panic("evm: " + err.Error()) // constants
	}
	return abi.Arguments{{Type: address}, {Type: some}, {Type: some}}
}()

// readSignature finds out whether the payer's key has signed. If it has not, that
// is no refusal: the payer may be a contract, which only the chain can tell.
func (p *payment) readSignature() error {
	p.signature = p.Authorization.Signature
	if bytes.HasSuffix(p.signature, magic6492) {
		values, err := wrapped6492.Unpack(p.signature[:len(p.signature)-len(magic6492)])
		if err != nil {
			return refuse(p.codes().signature, "it ends like an ERC-6492 signature, and is none")
		}
		p.factory = &deployment{values[0].(common.Address), values[1].([]byte)}
		p.signature = values[2].([]byte)
		p.signer = byContract
		return nil
	}
	s, err := eip712.ParseSignature(p.signature)
	if err == nil {
		var signer common.Address
		if signer, err = s.Recover(p.digest); err == nil && signer == p.From {
			p.signature = slices.Concat(s.R[:], s.S[:], []byte{s.V})
			return nil
		}
	}
	p.signer = byContract
	return nil
}

// learn takes note of whether the payer has code. It reports whether that makes
// another settlement of the payment, so that the chain must be looked at again.
func (p *payment) learn(v view, allowed []common.Address) bool {
	_, byToken := p.way.(*eip3009)
	switch {
	case v.payerCode && p.signer == byKey:
		p.signer = byContract
	case v.payerCode && v.walletAgrees:
		// Once more, as it would be with the gas paid for: a wallet can tell a
		// simulation by its price.
	case !v.payerCode && p.factory != nil && byToken && slices.Contains(allowed, p.factory.factory):
		// Who does not exist yet cannot have let Permit2 move anything.
		p.signer = byFactory
	default:
		return false
	}
	p.calldata, p.learned, p.base, p.code = nil, true, v.base, v.code
	return true
}

// signed refuses a payment that its payer has not signed, as the chain sees it.
func (p *payment) signed(v view) error {
	switch {
	case p.signer == byKey && !v.payerCode, p.signer == byFactory && !v.payerCode:
		return nil
	case p.signer == byContract && v.payerCode && v.walletAgrees:
		return nil
	case !v.payerCode && p.factory != nil:
		return refuse(codeFactory, "the wallet does not exist, and its factory is not allowed to be called")
	case v.payerCode:
		return refuse(p.codes().signature, "the payer has code, which does not take the signature")
	}
	return refuse(p.codes().signature, "not signed by the payer's key")
}

// before puts the call that makes the wallet before the one that moves the money,
// in one transaction. It may fail, since somebody may have made the wallet in
// between; the other must not.
//
// It is Multicall3 that calls the factory, an account that owns nothing and that
// nobody trusts: whatever the payer put into the call, it is not ours.
func (d *deployment) before(to common.Address, data []byte) (common.Address, []byte) {
	return multicall3, chain.Pack("aggregate3", []call3f{{d.factory, true, d.data}, {to, false, data}})
}

// checkFactories reads the addresses of factories that may be called.
func checkFactories(list []string) ([]common.Address, error) {
	var factories []common.Address
	for _, s := range list {
		a := common.HexToAddress(s)
		switch {
		case !common.IsHexAddress(s) || len(s) != 42:
			return nil, errors.New("a factory is an address: 0x and 40 hexadecimal digits")
		case s != a.Hex() && s != "0x"+common.Bytes2Hex(a[:]):
			return nil, errors.New("the address of a factory is not the one that its capital letters say: copy it anew")
		case a == (common.Address{}) || slices.Contains([]common.Address{multicall3, eip712.Permit2, chain.ExactProxy, chain.UptoProxy}, a):
			return nil, errors.New(a.Hex() + " makes no wallets, and must never be called for a payer")
		case slices.Contains(factories, a):
			return nil, errors.New(a.Hex() + " is given twice")
		}
		factories = append(factories, a)
	}
	return factories, nil
}
