package evm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/go-json-experiment/json"
	"golang.org/x/crypto/scrypt"
)

// keystoreWord begins a signer that is an encrypted file.
const keystoreWord = "keystore"

// Bounds of what a keystore may ask for before its password is known to be good. Those
// that go-ethereum makes take a second and 256 MB.
const (
	maxScryptMemory     = 512 << 20
	maxScryptRounds     = 16
	maxPBKDF2Iterations = 10_000_000
)

// keystore is an encrypted key (Web3 Secret Storage, version 3), as go-ethereum,
// foundry and most wallets write it. It is read here because go-ethereum's reader
// comes with a watcher of directories, and panics at files that it does not like.
type keystore struct {
	Version int    `json:"version"`
	Address string `json:"address"` // optional
	Crypto  struct {
		Cipher       string `json:"cipher"`
		CipherText   string `json:"ciphertext"`
		CipherParams struct {
			IV string `json:"iv"`
		} `json:"cipherparams"`
		KDF       string `json:"kdf"`
		KDFParams struct {
			DKLen int    `json:"dklen"`
			Salt  string `json:"salt"`
			N     int    `json:"n"` // of scrypt, with the next two
			R     int    `json:"r"`
			P     int    `json:"p"`
			C     int    `json:"c"` // of pbkdf2, with the next
			PRF   string `json:"prf"`
		} `json:"kdfparams"`
		MAC string `json:"mac"`
	} `json:"crypto"`

	salt, iv, text, mac []byte
}

// readKeystore reads an encrypted key, and checks that to decrypt it is within
// bounds. Errors say nothing of what is in it: perhaps it is a key in the clear.
func readKeystore(text string) (*keystore, error) {
	k := new(keystore)
	if err := json.Unmarshal([]byte(text), k, json.MatchCaseInsensitiveNames(true)); err != nil {
		return nil, errors.New("this is no keystore file, which is JSON")
	}
	for _, member := range []struct {
		to   *[]byte
		from string
	}{{&k.salt, k.Crypto.KDFParams.Salt}, {&k.iv, k.Crypto.CipherParams.IV}, {&k.text, k.Crypto.CipherText}, {&k.mac, k.Crypto.MAC}} {
		var err error
		if *member.to, err = hex.DecodeString(member.from); err != nil {
			return nil, errors.New("a member of the keystore is not hexadecimal")
		}
	}
	params := &k.Crypto.KDFParams
	switch {
	case k.Version != 3:
		return nil, errors.New("the keystore is not of version 3")
	case k.Crypto.Cipher != "aes-128-ctr" || len(k.iv) != aes.BlockSize || len(k.text) != 32 || len(k.mac) != 32 || params.DKLen != 32:
		return nil, errors.New("the keystore is not one of an Ethereum key: aes-128-ctr with 32 bytes")
	case k.Crypto.KDF == "scrypt" && params.N > 1 && params.R > 0 && params.P > 0 && params.P <= maxScryptRounds &&
		params.R <= maxScryptMemory/128 && params.N <= maxScryptMemory/128/params.R:
	case k.Crypto.KDF == "pbkdf2" && params.PRF == "hmac-sha256" && params.C > 0 && params.C <= maxPBKDF2Iterations:
	default:
		return nil, errors.New("the keystore makes a key of its password in a way that is not known, or takes more than 512 MB")
	}
	return k, nil
}

// errPassword is for a keystore that cannot be decrypted.
var errPassword = errors.New("the password of the keystore is wrong, or the file is damaged")

// decrypt returns the private key, and checks that it is that of the address which
// the file names.
func (k *keystore) decrypt(password string) (*privateKey, error) {
	derived, err := k.derive(password)
	if err != nil {
		return nil, errPassword
	}
	defer clear(derived)
	if subtle.ConstantTimeCompare(crypto.Keccak256(derived[16:32], k.text), k.mac) != 1 {
		return nil, errPassword
	}
	block, err := aes.NewCipher(derived[:16])
	if err != nil {
		return nil, errPassword
	}
	b := make([]byte, len(k.text))
	defer clear(b)
	cipher.NewCTR(block, k.iv).XORKeyStream(b, k.text)
	key, err := crypto.ToECDSA(b)
	if err != nil {
		return nil, errors.New("the keystore holds a number that cannot be a private key")
	}
	address := crypto.PubkeyToAddress(key.PublicKey)
	if k.Address != "" && common.HexToAddress(strings.TrimSpace(k.Address)) != address {
		return nil, errors.New("the keystore holds the key of another address than it says")
	}
	return &privateKey{address: address, key: key}, nil
}

// derive makes the key of the cipher out of the password.
func (k *keystore) derive(password string) ([]byte, error) {
	params := &k.Crypto.KDFParams
	if k.Crypto.KDF == "pbkdf2" {
		return pbkdf2.Key(sha256.New, password, k.salt, params.C, params.DKLen)
	}
	return scrypt.Key([]byte(password), k.salt, params.N, params.R, params.P, params.DKLen)
}
