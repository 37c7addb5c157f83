package money

import (
	"strings"
	"testing"
)

func TestCheckAddress(t *testing.T) {
	for _, tc := range []struct {
		network, addr string
		says          string // a part of the error; empty: the address is good
	}{
		{"base", "0x209693Bc6afc0C5328bA36FaF03C514EF312287C", ""},
		{"base-sepolia", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", ""}, // these four from EIP-55
		{"ethereum", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359", ""},
		{"polygon", "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB", ""},
		{"eip155:424242", "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb", ""},
		{"base", "0x1234567890123456789012345678901234567890", ""}, // no letters, so no checksum

		{"base", "0x209693bc6afc0c5328ba36faf03c514ef312287c", "write 0x209693Bc6afc0C5328bA36FaF03C514EF312287C"},
		{"base", "0x209693BC6AFC0C5328BA36FAF03C514EF312287C", "write 0x209693Bc6afc0C5328bA36FaF03C514EF312287C"},
		{"base", "0x209693bc6afc0C5328bA36FaF03C514EF312287C", "mistyped"},
		{"base", "0x209693Bc6afc0C5328bA36FaF03C514EF312287D", "mistyped"},
		{"base", "209693Bc6afc0C5328bA36FaF03C514EF312287C", "not an EVM address"},
		{"base", "0X209693Bc6afc0C5328bA36FaF03C514EF312287C", "not an EVM address"},
		{"base", "0x209693Bc6afc0C5328bA36FaF03C514EF312287", "not an EVM address"},
		{"base", "0x209693Bc6afc0C5328bA36FaF03C514EF312287C0", "not an EVM address"},
		{"base", "0x209693Bc6afc0C5328bA36FaF03C514EF312287g", "not an EVM address"},
		{"base", "jane.eth", "not an EVM address"},
		{"base", "CmGgLQL36Y9ubtTsy2zmE46TAxwCBm66onZmPPhUWNqv", "not an EVM address"},
		{"base", "", "is empty"},
		{"base", " 0x209693Bc6afc0C5328bA36FaF03C514EF312287C", "space"},
		{"base", "0x209693Bc6afc0C5328bA36FaF03C514EF312287C\n", "space"},
		{"base", "{env.PAYEE}", "placeholder"},
		{"base", "0x0000000000000000000000000000000000000000", "burn"},
		{"base", "0x0000000000000000000000000000000000000001", "burn"},
		{"base", "0x0000000000000000000000000000000000000011", "burn"},
		{"base", "0x0000000000000000000000000000000000000100", "burn"},
		{"base", "0x000000000000000000000000000000000000dEaD", "burn"},
		{"base", "0x000000000000000000000000000000000000dead", "burn"},
		{"base", "0xdEAD000000000000000042069420694206942069", "burn"},
		{"base", "0xEeeeeEeeeEeEeeEeEeEeeEEEeeeeEeeeeeeeEEeE", "burn"},
		{"base", "0xFFfFfFffFFfffFFfFFfFFFFFffFFFffffFfFFFfF", "burn"},
		{"base", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "the token USDC itself"},
		{"base-sepolia", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", ""}, // there it is no token

		{"solana", "CmGgLQL36Y9ubtTsy2zmE46TAxwCBm66onZmPPhUWNqv", ""},
		{"solana-devnet", "CmGgLQL36Y9ubtTsy2zmE46TAxwCBm66onZmPPhUWNqv", ""},
		{"solana:unknown", "CmGgLQL36Y9ubtTsy2zmE46TAxwCBm66onZmPPhUWNqv", ""},
		{"solana", "cmgglql36y9ubttsy2zme46taxwcbm66onzmpphuwnqv", "not a Solana address"}, // an l
		{"solana", "CmGgLQL36Y9ubtTsy2zmE46TAxwCBm66onZmPPhUW", "not a Solana address"},
		{"solana", "CmGgLQL36Y9ubtTsy2zmE46TAxwCBm66onZmPPhUWNqv1", "not a Solana address"},
		{"solana", "0OIl", "not a Solana address"},
		{"solana", "1111111111111111111111111111111", "not a Solana address"},
		{"solana", "11111111111111111111111111111111", "burn"},
		{"solana", "1nc1nerator11111111111111111111111111111111", "burn"},
		{"solana", "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA", "burn"},
		{"solana", "So11111111111111111111111111111111111111112", "burn"},
		{"solana", "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", "the token USDC itself"},
		{"solana", "0x209693Bc6afc0C5328bA36FaF03C514EF312287C", "not a Solana address"},

		{"near", "jane.near", ""},
		{"hedera", "0.0.12345", ""},
		{"xrpl", "rN7n7otQDd6FczFgLdSqtcsAUxDkw6fzRH", ""},
		{"near", "", "is empty"},
		{"near", "jane near", "space"},
		{"near", "jäne.near", "printable ASCII"},
		{"near", "a\x00b", "printable ASCII"},
		{"near", "{env.X}", "placeholder"},
		{"near", strings.Repeat("a", 257), "256"},
	} {
		n, ok := FindNetwork(tc.network)
		if !ok {
			t.Fatal(tc.network)
		}
		got, err := CheckAddress(n, tc.addr)
		switch {
		case tc.says == "" && (err != nil || got != tc.addr):
			t.Errorf("%s on %s: %q, %v", tc.addr, tc.network, got, err)
		case tc.says != "" && (err == nil || got != ""):
			t.Errorf("%s on %s: %q, want an error", tc.addr, tc.network, got)
		case tc.says != "" && !strings.Contains(err.Error(), tc.says):
			t.Errorf("%s on %s: %q, want it to say %q", tc.addr, tc.network, err, tc.says)
		}
	}
}

// TestNoHelpWithTypos: the message for an address that does not fit its
// checksum must not turn the typing error into an address that looks right.
func TestNoHelpWithTypos(t *testing.T) {
	n, _ := FindNetwork("base")
	_, err := CheckAddress(n, "0x209693Bc6afc0C5328bA36FaF03C514EF312287D")
	if err == nil || strings.Count(err.Error(), "0x") != 1 {
		t.Errorf("%v", err)
	}
}

func TestDecodeBase58(t *testing.T) {
	for in, want := range map[string]string{
		"1":  "\x00",
		"11": "\x00\x00",
		"2":  "\x01",
		"12": "\x00\x01",
		"z":  "\x39",
		"21": "\x3a",
	} {
		if got, ok := decodeBase58(in); !ok || string(got) != want {
			t.Errorf("%s: %x, %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "0", "O", "I", "l", " 2", strings.Repeat("2", 45)} {
		if got, ok := decodeBase58(in); ok {
			t.Errorf("%q: %x", in, got)
		}
	}
}
