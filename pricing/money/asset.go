package money

import (
	_ "embed"
	"strings"
	"sync"
)

// How an asset on an EVM chain moves.
const (
	TransferEIP3009 = "eip3009"
	TransferPermit2 = "permit2"
)

// Asset is a token on one network.
type Asset struct {
	// Network is the CAIP-2 id of the chain.
	Network string
	// Address is the token's contract or mint, in the canonical spelling.
	Address string
	// Symbol is what people write, for example "USDC".
	Symbol string
	// Name and Version are those of the token's EIP-712 domain, which payers
	// sign: a wrong one makes every payment invalid. They are empty where
	// offers carry none: on other families than EVM, and for permit2 assets
	// without EIP-2612.
	Name, Version string
	// Decimals is how many decimals one token has.
	Decimals int
	// Transfer is how the token moves, "eip3009" or "permit2"; empty on other
	// families than EVM.
	Transfer string
	// EIP2612 says that a permit2 asset takes gasless approvals.
	EIP2612 bool
	// PegUSD says that one token is one US dollar, so that `$0.01` can be paid
	// with it.
	PegUSD bool
	// Default says that the official clients of version 2 know the asset. They
	// refuse others unless their user allows them.
	Default bool
}

//go:embed assets.json
var assetsJSON []byte

// assetTable is the built-in table of assets, by network and symbol and by
// network and address.
type assetTable map[assetKey]Asset

type assetKey struct{ network, word string }

// assets is read on first use and never changed.
var assets = sync.OnceValue(func() assetTable {
	var rows []struct {
		Network  string `json:"network"`
		Address  string `json:"address"`
		Symbol   string `json:"symbol"`
		Name     string `json:"name"`
		Version  string `json:"version"`
		Decimals int    `json:"decimals"`
		Transfer string `json:"transfer"`
		EIP2612  bool   `json:"eip2612"`
		PegUSD   bool   `json:"peg_usd"`
		Default  bool   `json:"default"`
	}
	mustUnmarshal(assetsJSON, &rows)
	table := make(assetTable, 2*len(rows))
	for _, row := range rows {
		n, ok := FindNetwork(row.Network)
		if !ok {
			panic("money: assets.json: unknown network " + row.Network)
		}
		a := Asset(row)
		a.Address = canonicalAddress(n, a.Address)
		for _, word := range []string{strings.ToLower(a.Symbol), addressKey(n, a.Address)} {
			key := assetKey{n.CAIP2, word}
			if _, twice := table[key]; twice {
				panic("money: assets.json names " + word + " twice on " + n.CAIP2)
			}
			table[key] = a
		}
	}
	return table
})

// FindAsset finds an asset of the built-in table by its symbol, in any letter
// case, or by its address; EVM addresses in any letter case too, because the
// table knows them and needs no checksum. The network is a name or a CAIP-2 id.
func FindAsset(network, symbolOrAddress string) (Asset, bool) {
	n, ok := FindNetwork(network)
	if !ok {
		return Asset{}, false
	}
	if a, ok := assets()[assetKey{n.CAIP2, addressKey(n, symbolOrAddress)}]; ok {
		return a, true
	}
	a, ok := assets()[assetKey{n.CAIP2, strings.ToLower(symbolOrAddress)}]
	return a, ok
}

// addressKey is the address as the table has it: without letter case where
// letter case is only a checksum.
func addressKey(n Network, addr string) string {
	if n.Family == familyEVM {
		return strings.ToLower(addr)
	}
	return addr
}
