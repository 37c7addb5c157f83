// Package devkey derives the accounts that development chains share. Their keys
// are no secret: everybody who can read has them, and money sent to them on a
// real chain is gone within seconds.
package devkey

import (
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"math/big"

	"github.com/ethereum/go-ethereum/crypto"
)

// Mnemonic is the phrase of Hardhat and Anvil, and of our development chain.
const Mnemonic = "test test test test test test test test test test test junk"

// hardened marks a step of a path whose public key derives nothing.
const hardened = 1 << 31

// Derive returns the key of account n, at m/44'/60'/0'/0/n, where all wallets
// look for it.
func Derive(n uint32) (*ecdsa.PrivateKey, error) {
	if n >= hardened {
		return nil, errors.New("the number is too large")
	}
	seed, err := pbkdf2.Key(sha512.New, Mnemonic, []byte("mnemonic"), 2048, 64) // BIP-39
	if err != nil {
		return nil, err
	}
	at := hmac512([]byte("Bitcoin seed"), seed)
	for _, step := range []uint32{44 + hardened, 60 + hardened, hardened, 0, n} {
		if at, err = at.child(step); err != nil {
			return nil, err
		}
	}
	return crypto.ToECDSA(at[:32])
}

// node is a node of a BIP-32 tree: a private key and a chain code.
type node [64]byte

// child derives a node. BIP-32 says to skip a sum that is no key; nobody has
// ever met one, so that is an error here.
func (n node) child(step uint32) (node, error) {
	key, err := crypto.ToECDSA(n[:32])
	if err != nil {
		return node{}, err
	}
	data := append([]byte{0}, n[:32]...)
	if step < hardened {
		data = crypto.CompressPubkey(&key.PublicKey)
	}
	next := hmac512(n[32:], binary.BigEndian.AppendUint32(data, step))
	sum := new(big.Int).SetBytes(next[:32])
	sum.Add(sum, new(big.Int).SetBytes(n[:32])).Mod(sum, crypto.S256().Params().N)
	sum.FillBytes(next[:32])
	return next, nil
}

func hmac512(key, data []byte) node {
	mac := hmac.New(sha512.New, key)
	mac.Write(data)
	return node(mac.Sum(nil))
}
