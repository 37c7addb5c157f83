package money

import (
	_ "embed"
	"encoding/json"
	"strings"
	"sync"
)

// Families of networks that this package knows the addresses of.
const (
	familyEVM    = "eip155"
	familySolana = "solana"
)

// Network is a chain on which money moves.
type Network struct {
	// CAIP2 is the chain's id, for example "eip155:8453".
	CAIP2 string
	// Name is what people write, for example "base". For chains that version 1
	// of the protocol knows it is the name of that version. A chain that is not
	// in the built-in table has its id as its name.
	Name string
	// Test says that the money on the chain is worth nothing. Chains outside
	// the built-in table count as real.
	Test bool
	// Family is the first part of the id, for example "eip155" or "solana".
	Family string
}

// Title is the chain's name for people, such as `Base Sepolia (test money)`.
func (n Network) Title() string {
	title := n.Name
	if !strings.Contains(title, ":") {
		words := strings.Split(title, "-")
		for i, word := range words {
			if spelled, ok := spelledNames[word]; ok {
				words[i] = spelled
			} else if word != "" {
				words[i] = strings.ToUpper(word[:1]) + word[1:]
			}
		}
		title = strings.Join(words, " ")
	}
	if n.Test {
		title += " (test money)"
	}
	return title
}

// spelledNames are the words of names that are written with more capitals than one.
var spelledNames = map[string]string{
	"adi": "ADI", "bnb": "BNB", "educhain": "EDU Chain", "hpp": "HPP", "iotex": "IoTeX", "megaeth": "MegaETH", "near": "NEAR",
	"skale": "SKALE", "ton": "TON", "world": "World Chain", "xdc": "XDC", "xrpl": "XRPL", "zksync": "ZKsync",
}

//go:embed networks.json
var networksJSON []byte

// networks is the built-in table, by id and by name. It is read on first use
// and never changed.
var networks = sync.OnceValue(func() map[string]Network {
	var rows []struct {
		CAIP2 string   `json:"caip2"`
		Names []string `json:"names"`
		Test  bool     `json:"test"`
	}
	mustUnmarshal(networksJSON, &rows)
	table := make(map[string]Network, 3*len(rows))
	for _, row := range rows {
		family, _, _ := strings.Cut(row.CAIP2, ":")
		n := Network{CAIP2: row.CAIP2, Name: row.Names[0], Test: row.Test, Family: family}
		for _, key := range append(row.Names, row.CAIP2) {
			if _, twice := table[key]; twice {
				panic("money: networks.json names " + key + " twice")
			}
			table[key] = n
		}
	}
	return table
})

// FindNetwork finds a chain by its name (`base`, in any letter case) or its
// CAIP-2 id (`eip155:8453`). An id that is not in the built-in table is taken
// as it is: other chains exist, and a facilitator may know them. A word that is
// neither is not found.
func FindNetwork(nameOrCAIP2 string) (Network, bool) {
	if n, ok := networks()[nameOrCAIP2]; ok {
		return n, true
	}
	family, reference, isID := strings.Cut(nameOrCAIP2, ":")
	if !isID {
		n, ok := networks()[strings.ToLower(nameOrCAIP2)]
		return n, ok
	}
	if !isCAIP2(family, reference) {
		return Network{}, false
	}
	return Network{CAIP2: nameOrCAIP2, Name: nameOrCAIP2, Family: family}, true
}

// isCAIP2 reports whether family and reference make a chain id. The references
// of some chains, such as Algorand's, are base64 and leave the alphabet of the
// standard. Chain ids of EVM chains have one spelling only, because a second
// one would be a second key for the same authorization.
func isCAIP2(family, reference string) bool {
	const lower, digits = "abcdefghijklmnopqrstuvwxyz", "0123456789"
	if len(family) < 3 || len(family) > 8 || strings.Trim(family, lower+digits+"-") != "" {
		return false
	}
	if reference == "" || len(reference) > 64 ||
		strings.Trim(reference, lower+strings.ToUpper(lower)+digits+"-_+/=") != "" {
		return false
	}
	if family == familyEVM {
		return isDigits(reference) && reference[0] != '0'
	}
	return true
}

// mustUnmarshal reads an embedded table. A table that cannot be read is a fault
// of the build, which every test would meet.
func mustUnmarshal(data []byte, into any) {
	if err := json.Unmarshal(data, into); err != nil {
		panic("money: embedded table: " + err.Error())
	}
}
