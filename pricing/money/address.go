package money

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ethereum/go-ethereum/common"
)

// maxAddress is how long an address may be on a chain whose addresses this
// package does not know.
const maxAddress = 256

// lastSystemAddress is the highest EVM address taken for a system address: the
// precompiled contracts and their room to grow, and the usual burn address
// 0x…dEaD. Nobody has the key of one, because finding it would mean breaking
// the hash.
const lastSystemAddress = 0xffff

// burnEVM are further addresses that take money and never give it back.
var burnEVM = map[string]bool{
	"0xdead000000000000000042069420694206942069": true,
	"0xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee": true,
	"0xffffffffffffffffffffffffffffffffffffffff": true,
}

// burnSolana are programs and burn addresses, which cannot own a wallet.
var burnSolana = map[string]bool{
	"11111111111111111111111111111111":             true, // system program
	"1nc1nerator11111111111111111111111111111111":  true,
	"TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA":  true,
	"TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb":  true,
	"ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL": true,
	"So11111111111111111111111111111111111111112":  true, // wrapped SOL
}

// CheckAddress checks who shall receive the money, because money sent to a
// wrong address is gone, and returns the canonical spelling.
//
// On EVM chains the EIP-55 checksum is required: it is the only protection
// against a typing error. Zero, precompiled, burn and token contract addresses
// are refused on EVM and Solana. On other chains the address is only checked
// to be one printable word.
func CheckAddress(n Network, addr string) (string, error) {
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("address %s on %s %w", quote(addr), n.Name, err)
	}
	if err := checkWord(addr); err != nil {
		return fail(err)
	}
	var err error
	switch n.Family {
	case familyEVM:
		err = checkEVM(addr)
	case familySolana:
		err = checkSolana(addr)
	}
	if err != nil {
		return fail(err)
	}
	// A token has no way to pass money on that was sent to its contract.
	if a, ok := assets()[assetKey{n.CAIP2, addressKey(n, addr)}]; ok && addressKey(n, a.Address) == addressKey(n, addr) {
		return fail(fmt.Errorf("is the token %s itself, where money is lost; write the address of your wallet", a.Symbol))
	}
	return addr, nil
}

// checkWord holds for the addresses of every chain.
func checkWord(addr string) error {
	switch {
	case addr == "":
		return errors.New("is empty; write the address of your wallet")
	case len(addr) > maxAddress:
		return fmt.Errorf("has more than %d characters; write the address of your wallet", maxAddress)
	case strings.ContainsAny(addr, "{}"):
		return errors.New("holds a placeholder that was not resolved; write the address of your wallet")
	}
	for _, c := range []byte(addr) {
		if c <= ' ' || c > '~' {
			return errors.New("has a space or a character that is not printable ASCII; write the address of your wallet as one word")
		}
	}
	return nil
}

func checkEVM(addr string) error {
	hex, prefixed := strings.CutPrefix(addr, "0x")
	if !prefixed || len(hex) != 2*common.AddressLength || !common.IsHexAddress(addr) {
		return errors.New("is not an EVM address; write 0x and 40 hexadecimal digits")
	}
	a := common.HexToAddress(addr)
	checksummed := a.Hex()
	if n := a.Big(); n.IsUint64() && n.Uint64() <= lastSystemAddress || burnEVM[strings.ToLower(addr)] {
		return errors.New("is a zero, system or burn address, where money is lost; write the address of your wallet")
	}
	switch {
	case addr == checksummed:
		return nil
	case hex == strings.ToLower(hex) || hex == strings.ToUpper(hex):
		return fmt.Errorf("has no checksum, so that a typing error would not show; compare it with your wallet and write %s", checksummed)
	default:
		// The corrected spelling is not shown: it would turn the typing error
		// into an address that looks right.
		return errors.New("does not fit its checksum, so it is mistyped; copy it from your wallet again")
	}
}

func checkSolana(addr string) error {
	key, ok := decodeBase58(addr)
	if !ok || len(key) != solanaKeyLength {
		return errors.New("is not a Solana address; write the 32 bytes of a public key in base58")
	}
	if burnSolana[addr] {
		return errors.New("is a program or a burn address, where money is lost; write the address of your wallet")
	}
	return nil
}

// canonicalAddress is the spelling that CheckAddress accepts.
func canonicalAddress(n Network, addr string) string {
	if n.Family == familyEVM {
		return common.HexToAddress(addr).Hex()
	}
	return addr
}
