package crawlers

import "strings"

// Proof says how far what a client says of itself can be believed.
type Proof string

// The proofs.
const (
	// Verified: it is the one, by its address, its name in the DNS, or its signature.
	Verified Proof = "verified"
	// Claimed: it says so. Anybody can.
	Claimed Proof = "claimed"
	// Browser: it calls itself what browsers do. Most are people.
	Browser Proof = "browser"
	// Toolish: it names a library or a headless browser.
	Toolish Proof = "tool"
	// Unknown: anything else.
	Unknown Proof = "unknown"
)

// Client is who asks. Name, Kind and Operator are those of a row of the table, so that a
// stranger cannot make up new ones; a browser and who is unknown have none.
type Client struct {
	Name     string
	Kind     Kind
	Operator string
	Proof    Proof
}

// as is the client that a row is for.
func (c *Crawler) as(p Proof) Client {
	if c.Kind == Tool && p == Claimed {
		p = Toolish
	}
	return Client{Name: c.Token, Kind: c.Kind, Operator: c.Operator, Proof: p}
}

// nameless is a client that names nothing from the table.
func nameless(userAgent string) Client {
	if isBrowserLike(userAgent) {
		return Client{Proof: Browser}
	}
	return Client{Proof: Unknown}
}

// isBrowserLike says whether a User-Agent is such as browsers send: `Mozilla/5.0 (` and a
// known engine. With `(compatible; …)` robots name themselves.
func isBrowserLike(userAgent string) bool {
	if len(userAgent) > maxUserAgent {
		userAgent = userAgent[:maxUserAgent]
	}
	rest, ok := strings.CutPrefix(userAgent, "Mozilla/5.0 (")
	if !ok || strings.Contains(rest, "compatible;") {
		return false
	}
	for _, engine := range [...]string{"AppleWebKit/", "Gecko/", "Trident/"} {
		if strings.Contains(rest, engine) {
			return true
		}
	}
	return false
}
