package money_test

import (
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/client/devkey"
	"github.com/caddy-paywall/caddy-paywall/pricing/money"
)

// TestPublicPayees: real money does not go to the payees of examples, nor to
// accounts whose keys everybody has. Test money may.
func TestPublicPayees(t *testing.T) {
	public := map[string]string{
		"0x209693Bc6afc0C5328bA36FaF03C514EF312287C":   "examples",
		"CmGgLQL36Y9ubtTsy2zmE46TAxwCBm66onZmPPhUWNqv": "examples",
		"0x90F8bf6A479f320ead074411a4B0e7944Ea8c9C1":   "Ganache",
		"0x627306090abaB3A6e1400e9345bC60c78a8BEf57":   "Truffle",
		"0x9858EfFD232B4033E47d90003D41EC34EcaEda94":   "BIP-39",
	}
	for n := range uint32(20) {
		key, err := devkey.Derive(n)
		if err != nil {
			t.Fatal(err)
		}
		public[crypto.PubkeyToAddress(key.PublicKey).Hex()] = "Hardhat"
	}
	for n := range int64(10) {
		key, err := crypto.ToECDSA(big.NewInt(n + 1).FillBytes(make([]byte, 32)))
		if err != nil {
			t.Fatal(err)
		}
		public[crypto.PubkeyToAddress(key.PublicKey).Hex()] = "guess"
	}
	for addr, want := range public {
		real, test := []string{"base", "ethereum", "polygon", "eip155:424242"}, []string{"base-sepolia", "anvil"}
		if !strings.HasPrefix(addr, "0x") {
			real, test = []string{"solana"}, []string{"solana-devnet"}
		}
		for _, name := range real {
			if err := payee(t, name, addr); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "write the address of your wallet") {
				t.Errorf("%s on %s: %v, want it to say %q", addr, name, err, want)
			}
		}
		for _, name := range test {
			if err := payee(t, name, addr); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestPayeesThatNobodyOwns: money sent to them is lost, on every network.
func TestPayeesThatNobodyOwns(t *testing.T) {
	for addr, says := range map[string]string{
		"0x0000000000000000000000000000000000000000": "burn",
		"0x000000000000000000000000000000000000dEaD": "burn",
		"0x0000000000000000000000000000000000000001": "burn",
		"0xDeaDbeefdEAdbeefdEadbEEFdeadbeEFdEaDbeeF": "lost",
		"0x000000000022D473030F116dDEE9F6B43aC78BA3": "Permit2",
		"0xcA11bde05977b3631167028862bE2a173976CA11": "Multicall3",
		"0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789": "EntryPoint",
		"0x4200000000000000000000000000000000000006": "the chain itself",
		"0x4200000000000000000000000000000000000011": "the chain itself",
		"0x209693Bc6afc0C5328bA36FaF03C514EF312287D": "mistyped",
	} {
		for _, name := range []string{"base", "base-sepolia"} {
			if err := payee(t, name, addr); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s on %s: %v, want it to say %q", addr, name, err, says)
			}
		}
	}
	for _, addr := range []string{"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0x4212345678901234567890123456789012345678"} {
		if err := payee(t, "base", addr); err != nil {
			t.Error(err)
		}
	}
}

func payee(t *testing.T, network, addr string) error {
	t.Helper()
	n, ok := money.FindNetwork(network)
	if !ok {
		t.Fatal(network)
	}
	got, err := money.CheckPayee(n, addr)
	if err == nil && got != addr {
		return fmt.Errorf("%s became %s", addr, got)
	}
	return err
}
