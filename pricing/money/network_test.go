package money

import (
	"strings"
	"testing"
)

// TestOfficialNetworks: every name of version 1 is the name of its chain here,
// because offers of version 1 carry it.
func TestOfficialNetworks(t *testing.T) {
	var vectors struct {
		V1ToCAIP2 map[string]string `json:"v1ToCaip2"`
	}
	readJSON(t, "testdata/data-networks.json", &vectors)
	for name, caip2 := range vectors.V1ToCAIP2 {
		for _, word := range []string{name, strings.ToUpper(name), caip2} {
			n, ok := FindNetwork(word)
			if !ok || n.CAIP2 != caip2 || n.Name != name || !strings.HasPrefix(caip2, n.Family+":") {
				t.Errorf("%s: %+v, %v, want %s", word, n, ok, caip2)
			}
		}
	}
	if len(vectors.V1ToCAIP2) < 20 {
		t.Error("the vectors are not all there")
	}
}

func TestNetworkTable(t *testing.T) {
	for word, n := range networks() {
		family, reference, _ := strings.Cut(n.CAIP2, ":")
		if family != n.Family || !isCAIP2(family, reference) {
			t.Errorf("%s: %+v is no CAIP-2 id", word, n)
		}
		if strings.ToLower(n.Name) != n.Name || strings.Contains(n.Name, ":") {
			t.Errorf("%s: %+v is no name", word, n)
		}
		// Test money is called so; what is called so is test money.
		called := false
		for _, part := range []string{"test", "sepolia", "devnet", "amoy", "fuji", "apothem", "preprod", "anvil"} {
			called = called || strings.Contains(n.Name, part)
		}
		if called != n.Test {
			t.Errorf("%s: %+v", word, n)
		}
	}
}

func TestFindNetwork(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want Network
	}{
		{"base", Network{"eip155:8453", "base", false, "eip155"}},
		{"Base", Network{"eip155:8453", "base", false, "eip155"}},
		{"base-sepolia", Network{"eip155:84532", "base-sepolia", true, "eip155"}},
		{"ethereum", Network{"eip155:1", "ethereum", false, "eip155"}},
		{"polygon", Network{"eip155:137", "polygon", false, "eip155"}},
		{"arbitrum", Network{"eip155:42161", "arbitrum", false, "eip155"}},
		{"optimism", Network{"eip155:10", "optimism", false, "eip155"}},
		{"avalanche", Network{"eip155:43114", "avalanche", false, "eip155"}},
		{"solana", Network{"solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "solana", false, "solana"}},
		{"solana-devnet", Network{"solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", "solana-devnet", true, "solana"}},
		{"eip155:8453", Network{"eip155:8453", "base", false, "eip155"}},
		// Chains that we do not know are taken as they are.
		{"eip155:424242", Network{"eip155:424242", "eip155:424242", false, "eip155"}},
		{"cosmos:cosmoshub-4", Network{"cosmos:cosmoshub-4", "cosmos:cosmoshub-4", false, "cosmos"}},
		{"algorand:SGO1GKSzyE7IEPItTxCByw9x8FmnrCDexi9/cOUJOiI=", Network{
			"algorand:SGO1GKSzyE7IEPItTxCByw9x8FmnrCDexi9/cOUJOiI=", "algorand:SGO1GKSzyE7IEPItTxCByw9x8FmnrCDexi9/cOUJOiI=", false, "algorand",
		}},
	} {
		if got, ok := FindNetwork(tc.in); !ok || got != tc.want {
			t.Errorf("%s: %+v, %v, want %+v", tc.in, got, ok, tc.want)
		}
	}
	for _, in := range []string{
		"", "nowhere", "base sepolia", "8453", ":", "eip155:", ":8453", "eip155:abc", "eip155:08453", "eip155:0",
		"eip155:-1", "eip155:*", "EIP155:8453", "ei:1", "toolongfamily:1", "cosmos:a b", "cosmos:ä", "cosmos:a:b",
		"eip155:8453 ", "{env.NETWORK}", "cosmos:" + strings.Repeat("a", 65),
	} {
		if n, ok := FindNetwork(in); ok {
			t.Errorf("%q: %+v, want none", in, n)
		}
	}
}
