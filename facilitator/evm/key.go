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

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
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
func (k *privateKey) sign(tx types.TxData, id uint64) (*types.Transaction, error) {
	return types.SignNewTx(k.key, types.LatestSignerForChainID(new(big.Int).SetUint64(id)), tx)
}

// encryptedKey is a key that is encrypted: the file and its password.
var encryptedKey = regexp.MustCompile(`^keystore (\{(?:env|file)\.[^{}]+\}) (\{(?:env|file)\.[^{}]+\})$`)

// The errors do not repeat what stands in the place of a secret.
var (
	errLiteralKey      = errors.New("the key must be given as {file./path/to/key} or {env.NAME}: what is written into the config itself shows in config dumps ({$NAME} writes it there too). If it was a real key, consider it known and use a new one")
	errLiteralKeystore = errors.New("after keystore come the encrypted file and its password, both as {file.*} or {env.*}: what is written into the config itself shows in config dumps ({$NAME} writes it there too). If it was a real password, consider it known and use a new one")
)

// placeholdersOf lists the placeholders of a signer: one, or those of a keystore and
// its password. An error is for one that is not given in a way that keeps it secret.
func placeholdersOf(raw string) ([]string, error) {
	if chain.IsPlaceholder(raw) {
		return []string{raw}, nil
	}
	if parts := encryptedKey.FindStringSubmatch(raw); parts != nil {
		return parts[1:], nil
	}
	if word, _, _ := strings.Cut(raw, " "); word == keystoreWord {
		return nil, errLiteralKeystore
	}
	return nil, errLiteralKey
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
		if _, err := placeholdersOf(raw); err != nil {
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
		if err := checkKeyFiles(raw, func(warning string) {
			logger.Warn("the key of an account that pays the gas is not well kept: "+warning, zap.String("account", k.address.Hex()))
		}); err != nil {
			return nil, fmt.Errorf("signer %d: %w", i+1, err)
		}
		for j, other := range keys {
			if other.address == k.address {
				return nil, fmt.Errorf("signer %d: %s holds the same key as %s, that of %s; remove one", i+1, raw, list[j], k.address) // #nosec G602 -- keys has one for each before it
			}
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// resolveKey reads the key. Errors never hold any of it.
func resolveKey(raw string) (*privateKey, error) {
	placeholders, err := placeholdersOf(raw)
	if err != nil {
		return nil, err
	}
	var texts []string
	for _, p := range placeholders {
		text, err := caddy.NewReplacer().ReplaceOrErr(p, true, true)
		if err != nil {
			return nil, fmt.Errorf("%s is unset, empty or unreadable; set the environment variable or write the file", p)
		}
		texts = append(texts, text)
	}
	var k *privateKey
	if len(texts) == 1 {
		k, err = plainKey(texts[0])
	} else {
		var store *keystore
		if store, err = readKeystore(texts[0]); err == nil {
			k, err = store.decrypt(texts[1])
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", placeholders[0], err)
	}
	return k, nil
}

// plainKey reads a key that is not encrypted.
func plainKey(text string) (*privateKey, error) {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "{") {
		return nil, errors.New("this may be an encrypted key: write keystore before it, and {file.*} or {env.*} with its password behind it")
	}
	if len(text) >= 2 && strings.EqualFold(text[:2], "0x") {
		text = text[2:]
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 32 {
		return nil, errors.New("this is no private key, which is 64 hexadecimal digits with or without 0x before them")
	}
	defer clear(b)
	key, err := crypto.ToECDSA(b)
	if err != nil {
		return nil, errors.New("this number cannot be a private key")
	}
	return &privateKey{address: crypto.PubkeyToAddress(key.PublicKey), key: key}, nil
}
