package devkey

import (
	"testing"

	"github.com/ethereum/go-ethereum/crypto"
)

// TestDerive: the accounts are those that Anvil and Hardhat print.
func TestDerive(t *testing.T) {
	for n, want := range map[uint32]string{
		0: "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
		1: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
		2: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
		9: "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
	} {
		key, err := Derive(n)
		if err != nil {
			t.Fatal(err)
		}
		if got := crypto.PubkeyToAddress(key.PublicKey).Hex(); got != want {
			t.Errorf("account %d is %s, want %s", n, got, want)
		}
	}
	if _, err := Derive(hardened); err == nil {
		t.Error("there is no account 2^31")
	}
}
