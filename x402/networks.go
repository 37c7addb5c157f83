package x402

// legacyNetwork is a network name of version 1.
type legacyNetwork struct {
	name, caip2 string
	// strict says that the official version 1 client knows the name. It refuses
	// a challenge as a whole for one name that it does not know.
	strict bool
}

// legacyNetworks are the names of version 1 that any official client or
// facilitator uses. The table is closed: version 1 gets no new networks.
var legacyNetworks = [...]legacyNetwork{
	{"base", "eip155:8453", true},
	{"base-sepolia", "eip155:84532", true},
	{"solana", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", true},
	{"solana-devnet", "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", true},
	{"polygon", "eip155:137", true},
	{"polygon-amoy", "eip155:80002", true},
	{"avalanche", "eip155:43114", true},
	{"avalanche-fuji", "eip155:43113", true},
	{"abstract", "eip155:2741", true},
	{"abstract-testnet", "eip155:11124", true},
	{"iotex", "eip155:4689", true},
	{"sei", "eip155:1329", true},
	{"sei-testnet", "eip155:1328", true},
	{"peaq", "eip155:3338", true},
	{"story", "eip155:1514", true},
	{"educhain", "eip155:41923", true},
	{"skale-base-sepolia", "eip155:324705682", true},
	{"ethereum", "eip155:1", false},
	{"sepolia", "eip155:11155111", false},
	{"megaeth", "eip155:4326", false},
	{"monad", "eip155:143", false},
	{"stable", "eip155:988", false},
	{"stable-testnet", "eip155:2201", false},
	{"celo", "eip155:42220", false},
	{"flare", "eip155:14", false},
	{"solana-testnet", "solana:4uhcVJyU9pJkvQyS88uRDiswHXSCkY3z", false},
}

// LegacyNetwork returns the version 1 name of a CAIP-2 chain id, "" if it has
// none, and whether the official version 1 client (1.2.0) knows the name.
func LegacyNetwork(caip2 string) (name string, strict bool) {
	for _, n := range legacyNetworks {
		if n.caip2 == caip2 {
			return n.name, n.strict
		}
	}
	return "", false
}

// caip2 returns the chain id of a version 1 name. The spelling must be exact.
func caip2(name string) (string, bool) {
	for _, n := range legacyNetworks {
		if n.name == name {
			return n.caip2, true
		}
	}
	return "", false
}
