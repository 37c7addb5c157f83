package evm

import (
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"go.uber.org/zap"
)

// hidden is what a key shows of itself.
const hidden = "[hidden]"

// privateKey signs transactions, and shows itself to nobody. It is used through
// a pointer only: what prints a struct by reflection shows an address in memory.
type privateKey struct {
	address common.Address
	key     *ecdsa.PrivateKey
}

// String implements fmt.Stringer.
func (*privateKey) String() string { return hidden }

// GoString implements fmt.GoStringer.
func (*privateKey) GoString() string { return hidden }

// Format implements fmt.Formatter, for every verb.
func (*privateKey) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(hidden)) }

// MarshalText implements encoding.TextMarshaler, which JSON uses too.
func (*privateKey) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// sign signs a transaction for one chain only.
func (k *privateKey) sign(tx types.TxData, chain uint64) (*types.Transaction, error) {
	return types.SignNewTx(k.key, types.LatestSignerForChainID(new(big.Int).SetUint64(chain)), tx)
}

// secretPlaceholder is the only thing that a key can be in the config.
var secretPlaceholder = regexp.MustCompile(`^\{(env|file)\.[^{}]+\}$`)

// errLiteralKey does not repeat what stands in the place of the key.
var errLiteralKey = errors.New("the key must be given as {file./path/to/key} or {env.NAME}: what is written into the config itself shows in config dumps ({$NAME} writes it there too). If it was a real key, consider it known and use a new one")

// checkKey says whether a key is given in a way that keeps it secret.
func checkKey(raw string) error {
	if !secretPlaceholder.MatchString(raw) {
		return errLiteralKey
	}
	return nil
}

// maxSigners bounds how many accounts of ours there are on a chain.
const maxSigners = 16

// checkKeys says whether the keys of a chain are given in a way that keeps them
// secret, and each once.
func checkKeys(list []string) error {
	switch {
	case len(list) == 0:
		return errors.New("signer is missing: give the key that pays the gas, as {file.*} or {env.*}")
	case len(list) > maxSigners:
		return fmt.Errorf("%d signers; %d are enough", len(list), maxSigners)
	}
	for i, raw := range list {
		if err := checkKey(raw); err != nil {
			return fmt.Errorf("signer %d: %w", i+1, err)
		}
		if slices.Contains(list[:i], raw) {
			return fmt.Errorf("signer %d: %s is given twice; remove one", i+1, raw)
		}
	}
	return nil
}

// resolveKeys reads the keys of a chain, and logs which files others can read. Errors
// and the log never hold any of them.
func resolveKeys(list []string, logger *zap.Logger) ([]*privateKey, error) {
	var keys []*privateKey
	for i, raw := range list {
		k, err := resolveKey(raw)
		if err != nil {
			return nil, fmt.Errorf("signer %d: %w", i+1, err)
		}
		warnings, err := checkKeyFile(raw)
		if err != nil {
			return nil, fmt.Errorf("signer %d: %w", i+1, err)
		}
		for _, w := range warnings {
			logger.Warn("the key of an account that pays the gas is not well kept: "+w, zap.String("account", k.address.Hex()))
		}
		for j, other := range keys {
			if other.address == k.address {
				return nil, fmt.Errorf("signer %d: %s holds the same key as %s, that of %s; remove one", i+1, raw, list[j], k.address)
			}
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// resolveKey reads the key. Errors never hold any of it.
func resolveKey(raw string) (*privateKey, error) {
	if err := checkKey(raw); err != nil {
		return nil, err
	}
	text, err := caddy.NewReplacer().ReplaceOrErr(raw, true, true)
	if err != nil {
		return nil, fmt.Errorf("%s is unset, empty or unreadable; set the environment variable or write the file", raw)
	}
	text = strings.TrimSpace(text)
	if len(text) >= 2 && strings.EqualFold(text[:2], "0x") {
		text = text[2:]
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 32 {
		return nil, fmt.Errorf("%s does not hold a private key, which is 64 hexadecimal digits with or without 0x before them", raw)
	}
	defer clear(b)
	key, err := crypto.ToECDSA(b)
	if err != nil {
		return nil, fmt.Errorf("%s holds a number that cannot be a private key", raw)
	}
	return &privateKey{address: crypto.PubkeyToAddress(key.PublicKey), key: key}, nil
}
