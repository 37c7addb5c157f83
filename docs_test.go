package paywall_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// pages are the pages that a reader of the README comes to, by file.
func pages(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("docs/*.md")
	if err != nil || len(files) == 0 {
		t.Fatal("no pages", err)
	}
	text := map[string]string{}
	for _, file := range append(files, "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md") {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text[file] = string(content)
	}
	return text
}

var (
	caddyfileBlock = regexp.MustCompile("(?ms)^ *```caddyfile\n(.*?)^ *```$")
	secretPath     = regexp.MustCompile(`/run/secrets/\w+`)
	firstWord      = regexp.MustCompile(`^\s*(\S+)`)
	examplePayees  = strings.NewReplacer(gate.ExamplePayee, gate.PayTo, "CmGgLQL36Y9ubtTsy2zmE46TAxwCBm66onZmPPhUWNqv", "4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T")
	// What an example accepts on a network with real money.
	acceptsReal = regexp.MustCompile(`(?m)^\s*accept +(base|solana|eip155:42161) .*(` + gate.ExamplePayee + `|CmGgLQL)`)
)

// TestExamplesLoad: every Caddyfile in the pages is valid, fragments in the place
// that their first word belongs to.
func TestExamplesLoad(t *testing.T) {
	secrets := t.TempDir()
	secretFile := func(path string) string { // each with a key of its own
		file, key := filepath.Join(secrets, filepath.Base(path)), sha256.Sum256([]byte(path))
		if err := os.WriteFile(file, []byte(hex.EncodeToString(key[:])), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	cdpKey := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	for name, value := range map[string]string{
		"CDP_API_KEY_ID": "id", "CDP_API_KEY_SECRET": base64.StdEncoding.EncodeToString(cdpKey),
		"PAYWALL_DSN": "postgres://db.example/paywall?sslmode=verify-full", "PAYEE": gate.PayTo,
		"BASE_SEPOLIA_RPC": "https://rpc.example", "POLYGON_RPC": "https://rpc.example", "POLYGON_GAS_KEY": strings.Repeat("7", 64),
	} {
		t.Setenv(name, value)
	}
	examples, asItIs := 0, 0
	for file, text := range pages(t) {
		for _, m := range caddyfileBlock.FindAllStringSubmatchIndex(text, -1) {
			examples++
			line := strings.Count(text[:m[2]], "\n") + 1
			example := secretPath.ReplaceAllStringFunc(text[m[2]:m[3]], secretFile)
			// Who copies an example and forgets to write an address of his own is
			// told so, where real money would go to another one's.
			if acceptsReal.MatchString(example) {
				asItIs++
				if err := gate.Validate(inPlace(example)); err == nil || !strings.Contains(err.Error(), "is the payee of examples") {
					t.Errorf("%s:%d: real money for the payee of examples: %v", file, line, err)
				}
				example = examplePayees.Replace(example)
			}
			if err := gate.Validate(inPlace(example)); err != nil {
				t.Errorf("%s:%d: %v", file, line, err)
			}
		}
	}
	if examples < 15 || asItIs < 5 {
		t.Errorf("%d examples found, %d of them with real money", examples, asItIs)
	}
}

// inPlace makes a whole Caddyfile of a fragment. Whole ones with global options
// stand for themselves.
func inPlace(example string) string {
	const (
		global = "{\npaywall {\nfacilitator x402org http://127.0.0.1:1\nfacilitator own http://127.0.0.1:1\n}\n}\n"
		accept = "accept base usdc " + gate.PayTo + "\n"
	)
	switch word := firstWord.FindStringSubmatch(example)[1]; word {
	case "{":
		return example
	case "ledger", "facilitator":
		return "{\npaywall {\n" + example + "}\n}\n"
	case "accept":
		return global + "http://localhost:1 {\npaywall {\nfacilitator own\n" + example + "}\n}\n"
	case "price", "settle":
		return global + "http://localhost:1 {\npaywall {\nfacilitator own\n" + accept + example + "price /example $1\n}\n}\n"
	case "paywall", "log":
		return global + "http://localhost:1 {\n" + example + "}\n"
	default: // a site
		if !strings.Contains(example, "facilitator ") {
			return example // which needs no more
		}
		return global + example
	}
}

// TestReferenceHasEveryWord: docs/caddyfile.md has all words that the parsers
// know, by what they say when they meet another one.
func TestReferenceHasEveryWord(t *testing.T) {
	reference := pages(t)["docs/caddyfile.md"]
	site := func(lines string) string { return "http://localhost:1 {\npaywall {\n" + lines + "\n}\n}" }
	global := func(lines string) string { return "{\npaywall {\n" + lines + "\n}\n}" }
	const price = "price /x $1 {\n"
	known := regexp.MustCompile(`(?:there are:|known are|knows) ([a-z0-9_, ]+)`)
	for where, caddyfile := range map[string]string{
		"global options":       global("other"),
		"kinds of ledger":      global("ledger other"),
		"ledger sqlite":        global("ledger sqlite {\nother\n}"),
		"ledger postgres":      global("ledger postgres x {\nother x\n}"),
		"kinds of facilitator": global("facilitator a other"),
		"remote facilitator":   global("facilitator a https://a.example {\nother\n}"),
		"auth":                 global("facilitator a https://a.example {\nauth other\n}"),
		"evm facilitator":      global("facilitator a evm {\nother\n}"),
		"network":              global("facilitator a evm {\nnetwork base {\nother\n}\n}"),
		"crawlers":             global("crawlers {\nother\n}"),
		"directive":            site("other"),
		"accept":               site("accept base usdc " + gate.PayTo + " {\nother\n}"),
		"price":                site(price + "other\n}"),
		"accept of a price":    site(price + "accept base usdc " + gate.PayTo + " {\nother\n}\n}"),
	} {
		err := gate.Validate(caddyfile)
		if err == nil {
			t.Fatalf("%s: a word that is none loads", where)
		}
		m := known.FindStringSubmatch(err.Error())
		if m == nil {
			t.Fatalf("%s: %v\ndoes not say which words there are", where, err)
		}
		for _, word := range strings.Fields(strings.ReplaceAll(strings.ReplaceAll(m[1], ",", " "), " and ", " ")) {
			if !regexp.MustCompile("`[^`\n]*\\b" + word + "\\b[^`\n]*`").MatchString(reference) {
				t.Errorf("docs/caddyfile.md does not explain %s of %s", word, where)
			}
		}
	}
}

// TestReferenceHasEveryNetwork: and every network and token of the tables.
func TestReferenceHasEveryNetwork(t *testing.T) {
	reference := pages(t)["docs/caddyfile.md"]
	_, tables, _ := strings.Cut(reference, "## Networks and tokens\n")
	names := map[string]string{} // by CAIP-2 id
	var networks []struct {
		CAIP2 string   `json:"caip2"`
		Names []string `json:"names"`
	}
	readTable(t, "pricing/money/networks.json", &networks)
	for _, n := range networks {
		names[n.CAIP2] = n.Names[0]
		for _, name := range n.Names {
			if !strings.Contains(tables, "`"+name+"`") {
				t.Errorf("docs/caddyfile.md does not name the network %s", name)
			}
		}
	}
	var assets []struct{ Network, Symbol string }
	readTable(t, "pricing/money/assets.json", &assets)
	for _, a := range assets {
		row := regexp.MustCompile("(?m)^\\| .*`" + regexp.QuoteMeta(strings.ToLower(a.Symbol)) + "`.*\\|.*`" + names[a.Network] + "`.*\\|$")
		if !row.MatchString(tables) {
			t.Errorf("docs/caddyfile.md has no %s on %s", a.Symbol, names[a.Network])
		}
	}
}

func readTable(t *testing.T, file string, into any) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, into); err != nil {
		t.Fatal(file, err)
	}
}

// TestPagesNameCodes: every code that is the gate's own is in docs/payments.md.
func TestPagesNameCodes(t *testing.T) {
	page := pages(t)["docs/payments.md"]
	source, err := os.ReadFile("internal/purchase/refusal.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`(?m)^\t[cC]ode\w+ +x402\.Code = "(\w+)"$`).FindAllSubmatch(source, -1)
	if len(codes) < 15 {
		t.Fatalf("%d codes found", len(codes))
	}
	for _, m := range codes {
		if code := string(m[1]); code != "client_gone" && !strings.Contains(page, "`"+code+"`") { // nobody sees that one
			t.Errorf("docs/payments.md does not name %s", code)
		}
	}
}

// TestLinks: links between the pages lead somewhere.
func TestLinks(t *testing.T) {
	text := pages(t)
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for file, page := range text {
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			u, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			if u.Scheme != "" {
				continue // elsewhere
			}
			target := file
			if u.Path != "" {
				target = filepath.Join(filepath.Dir(file), u.Path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			if u.Fragment != "" && !hasAnchor(text[target], u.Fragment) {
				t.Errorf("%s: no heading of %s is #%s", file, target, u.Fragment)
			}
		}
	}
}

// hasAnchor says whether a page has a heading of that name, as GitHub names them.
func hasAnchor(page, anchor string) bool {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllLiteralString(strings.ToLower(m[1]), "")
		if strings.ReplaceAll(name, " ", "-") == anchor {
			return true
		}
	}
	return false
}

// TestBuildWithXcaddyAsWritten: until there is a release, xcaddy can build the module from a
// checkout alone, and the pages give the form that `make xcaddy` runs.
func TestBuildWithXcaddyAsWritten(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	const form = "xcaddy build v2.11.9 --with github.com/caddy-paywall/caddy-paywall@v0.0.0=."
	if !strings.Contains(string(makefile), form) {
		t.Errorf("make xcaddy does not run %q", form)
	}
	for file, text := range pages(t) {
		for line := range strings.Lines(text) {
			if strings.Contains(line, "xcaddy build ") && !strings.Contains(line, form) {
				t.Errorf("%s: this cannot work before a release: %s", file, line)
			}
		}
	}
}
