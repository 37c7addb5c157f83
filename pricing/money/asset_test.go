package money

import (
	"strings"
	"testing"
)

// TestOfficialAssets: every row of the official tables is in ours.
func TestOfficialAssets(t *testing.T) {
	type row struct {
		Asset, Name, Version, Symbol string
		Decimals                     int
		AssetTransferMethod          string
		SupportsEIP2612              bool `json:"supportsEip2612"`
	}
	var vectors struct {
		EVM, SVM map[string][]row
		V1       map[string]row
	}
	readJSON(t, "testdata/data-assets.json", &vectors)
	count := 0
	for network, rows := range vectors.EVM {
		for _, r := range rows {
			count++
			want := Asset{
				Network: network, Address: r.Asset, Symbol: r.Symbol, Name: r.Name, Version: r.Version,
				Decimals: r.Decimals, Transfer: TransferEIP3009, EIP2612: r.SupportsEIP2612, PegUSD: true, Default: true,
			}
			if r.AssetTransferMethod != "" {
				want.Transfer = r.AssetTransferMethod
				if !r.SupportsEIP2612 {
					want.Name, want.Version = "", "" // its offers carry none
				}
			}
			for _, word := range []string{r.Symbol, strings.ToLower(r.Symbol), r.Asset, strings.ToLower(r.Asset), strings.ToUpper(r.Asset[2:])} {
				if word == strings.ToUpper(r.Asset[2:]) {
					word = "0x" + word
				}
				if got, ok := FindAsset(network, word); !ok || got != want {
					t.Errorf("%s on %s: %+v, want %+v", word, network, got, want)
				}
			}
		}
	}
	for network, rows := range vectors.SVM {
		for _, r := range rows {
			count++
			want := Asset{Network: network, Address: r.Asset, Symbol: r.Symbol, Decimals: r.Decimals, PegUSD: true, Default: true}
			for _, word := range []string{r.Symbol, strings.ToLower(r.Symbol), r.Asset} {
				if got, ok := FindAsset(network, word); !ok || got != want {
					t.Errorf("%s on %s: %+v, want %+v", word, network, got, want)
				}
			}
			if got, ok := FindAsset(network, strings.ToLower(r.Asset)); ok {
				t.Errorf("the lower-cased mint %s is %+v", r.Asset, got)
			}
		}
	}
	for name, r := range vectors.V1 {
		count++
		got, ok := FindAsset(name, "usdc")
		if !ok || !strings.EqualFold(got.Address, r.Asset) || got.Decimals != 6 || !got.PegUSD {
			t.Errorf("usdc on %s: %+v, want %+v", name, got, r)
		}
		if got.Transfer == TransferEIP3009 && (got.Name != r.Name || got.Version != "2") {
			t.Errorf("usdc on %s signs for %q, version %q, want %q, 2", name, got.Name, got.Version, r.Name)
		}
	}
	if count < 50 {
		t.Errorf("%d rows, want all", count)
	}
}

// TestAssetTable holds for every row, also those that are only ours.
func TestAssetTable(t *testing.T) {
	for key, a := range assets() {
		n, ok := FindNetwork(a.Network)
		if !ok || n.CAIP2 != a.Network || n.Name == n.CAIP2 {
			t.Errorf("%v: its network is not in the table", key)
		}
		if n.Family == familyEVM != (a.Transfer != "") {
			t.Errorf("%v: transfer %q", key, a.Transfer)
		}
		if a.Transfer == TransferEIP3009 && (a.Name == "" || a.Version == "") {
			t.Errorf("%v: nothing to sign for", key)
		}
		if a.EIP2612 && (a.Transfer != TransferPermit2 || a.Name == "") {
			t.Errorf("%v: EIP-2612 without permit2 or name", key)
		}
		if a.Decimals != 6 && a.Decimals != 18 {
			t.Errorf("%v: %d decimals", key, a.Decimals)
		}
		// The canonical spelling, and an address that exists; but no payee.
		if _, err := CheckAddress(n, a.Address); err == nil || !strings.Contains(err.Error(), "is the token") {
			t.Errorf("%v as payee: %v", key, err)
		}
	}
}

func TestFindAsset(t *testing.T) {
	for _, tc := range []struct{ network, word, name string }{
		{"base", "eurc", "EURC"},
		{"base-sepolia", "eurc", "EURC"},
		{"ethereum", "EURC", "Euro Coin"},
		{"avalanche", "Eurc", "Euro Coin"},
		{"base", "USDC", "USD Coin"},
		{"eip155:8453", "0x833589FCD6EDB6E08F4C7C32D4F71B54BDA02913", ""}, // found below
	} {
		a, ok := FindAsset(tc.network, tc.word)
		if !ok || tc.name != "" && (a.Name != tc.name || a.Version != "2" || a.PegUSD != (a.Symbol != "EURC")) {
			t.Errorf("%s on %s: %+v, %v", tc.word, tc.network, a, ok)
		}
	}
	for _, tc := range [][2]string{
		{"base", ""},
		{"base", "usdt"},
		{"base", "usd"},
		{"base", "0x036CbD53842c5426634e7929541eC2318f3dCF7e"}, // of Base Sepolia
		{"nowhere", "usdc"},
		{"eip155:10", "usdc"},
		{"", "usdc"},
		{"eip155:424242", "usdc"},
	} {
		if a, ok := FindAsset(tc[0], tc[1]); ok {
			t.Errorf("%s on %s: %+v, want none", tc[1], tc[0], a)
		}
	}
}
