package client

import (
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/client/devkey"
)

// Key is the private key of an account on EVM chains. However it is printed,
// logged or encoded, only its address shows.
type Key struct {
	// Behind a pointer: printing a struct around the key by reflection, which
	// asks no methods, stops at pointers.
	private *ecdsa.PrivateKey
	address common.Address
	dev     bool
}

// The errors of keys repeat nothing of what was read.
var (
	errBadKey = errors.New("not a private key: write 64 hexadecimal digits, with or without 0x")
	// errNoAccount is for 64 digits that no account has as its key: zero, or the order of the
	// curve and more.
	errNoAccount = errors.New("not a private key: these are 64 hexadecimal digits, but no account has this number as its key (all zeros, or too large); give the real key")
)

// ParseKey reads a private key from hexadecimal digits. White space around them
// is ignored, because files end with a line break.
func ParseKey(s string) (*Key, error) {
	number, err := hex.DecodeString(strings.TrimPrefix(strings.TrimSpace(s), "0x"))
	if err != nil || len(number) != 32 {
		return nil, errBadKey
	}
	defer clear(number)
	private, err := crypto.ToECDSA(number)
	if err != nil {
		return nil, errNoAccount
	}
	return newKey(private), nil
}

// DevKey is the key of account n of the mnemonic that development chains share.
// Everybody has it, so it pays only with test money; see the offer's checks.
func DevKey(n uint32) (*Key, error) {
	private, err := devkey.Derive(n)
	if err != nil {
		return nil, fmt.Errorf("development account %d: %w", n, err)
	}
	k := newKey(private)
	k.dev = true
	return k, nil
}

func newKey(private *ecdsa.PrivateKey) *Key {
	return &Key{private: private, address: crypto.PubkeyToAddress(private.PublicKey)}
}

// Address is the account that the key pays from, in EIP-55 spelling.
func (k *Key) Address() string { return k.address.Hex() }

// sign signs a digest as tokens take it: v is 27 or 28.
func (k *Key) sign(digest [32]byte) ([]byte, error) {
	signature, err := crypto.Sign(digest[:], k.private)
	if err != nil {
		return nil, errors.New("signing failed") // the cause would speak of the key
	}
	signature[crypto.RecoveryIDOffset] += 27
	return signature, nil
}

// String implements fmt.Stringer.
func (k Key) String() string { return "key of " + k.address.Hex() }

// Format implements fmt.Formatter, so that no verb shows the key.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// MarshalText implements encoding.TextMarshaler.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// LogValue implements slog.LogValuer.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }
