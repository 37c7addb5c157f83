package devchain

import (
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// Mnemonic is the phrase that the accounts come from, the one of Hardhat and
// Anvil. Whoever can read has its keys: they must never hold anything of worth.
const Mnemonic = "test test test test test test test test test test test junk"

// accountCount is how many accounts are listed; one more owns the test dollar.
const accountCount = 10

// Account is an account of the chain, with its key, which is no secret.
type Account struct {
	Address common.Address
	// PrivateKey is hex with 0x, as wallets take it.
	PrivateKey string

	key *ecdsa.PrivateKey
}

// Key returns the private key for signing.
func (a Account) Key() *ecdsa.PrivateKey { return a.key }

// deriveAccounts returns the first n accounts of the mnemonic, on the path that
// all wallets use (m/44'/60'/0'/0/i).
func deriveAccounts(n int) ([]Account, error) {
	seed, err := pbkdf2.Key(sha512.New, Mnemonic, []byte("mnemonic"), 2048, 64)
	if err != nil {
		return nil, err
	}
	const hardened = 1 << 31
	root := hmac512([]byte("Bitcoin seed"), seed)
	for _, step := range []uint32{44 + hardened, 60 + hardened, hardened, 0} {
		if root, err = root.child(step); err != nil {
			return nil, err
		}
	}
	accounts := make([]Account, n)
	for i := range accounts {
		node, err := root.child(uint32(i)) //nolint:gosec // small
		if err != nil {
			return nil, err
		}
		key, err := crypto.ToECDSA(node[:32])
		if err != nil {
			return nil, err
		}
		accounts[i] = Account{
			Address:    crypto.PubkeyToAddress(key.PublicKey),
			PrivateKey: "0x" + hex.EncodeToString(node[:32]),
			key:        key,
		}
	}
	return accounts, nil
}

// treeNode is a node of the key tree of BIP-32: a private key and a chain code.
type treeNode [64]byte

// child derives the child i of a node. The two cases in which BIP-32 says to skip
// an index need a hash that nobody has ever seen, and the mnemonic is fixed.
func (n treeNode) child(i uint32) (treeNode, error) {
	key, err := crypto.ToECDSA(n[:32])
	if err != nil {
		return treeNode{}, err
	}
	data := append([]byte{0}, n[:32]...)
	if i < 1<<31 {
		data = crypto.CompressPubkey(&key.PublicKey)
	}
	child := hmac512(n[32:], binary.BigEndian.AppendUint32(data, i))
	sum := new(big.Int).SetBytes(child[:32])
	sum.Add(sum, new(big.Int).SetBytes(n[:32])).Mod(sum, crypto.S256().Params().N)
	sum.FillBytes(child[:32])
	return child, nil
}

func hmac512(key, data []byte) treeNode {
	mac := hmac.New(sha512.New, key)
	mac.Write(data)
	return treeNode(mac.Sum(nil))
}
