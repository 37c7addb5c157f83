package paywall_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestAdapt compares what a Caddyfile becomes: JSON, or an error that names
// the line and the remedy. In each file the Caddyfile comes first, then a line
// of dashes, then the expectation.
func TestAdapt(t *testing.T) {
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	// Of evm_signers: well-known keys, which own nothing.
	t.Setenv("PAYWALL_TEST_KEY_A", "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d")
	t.Setenv("PAYWALL_TEST_KEY_B", "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6")
	t.Setenv("PARTNER_KEY", "a secret") // of exempt
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(content), "----------\n")
			adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
			var got string
			if err != nil {
				got = err.Error() + "\n"
			} else {
				var pretty bytes.Buffer
				if err := json.Indent(&pretty, adapted, "", "\t"); err != nil {
					t.Fatal(err)
				}
				got = pretty.String() + "\n"
			}
			if *update {
				if err := os.WriteFile(file, []byte(input+"----------\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			bad := strings.HasPrefix(filepath.Base(file), "bad_")
			if (err != nil) != bad {
				t.Errorf("files named bad_ fail to adapt, and only these: %v", err)
			}
			if !bad {
				if err := gate.ValidateJSON(adapted); err != nil {
					t.Errorf("does not validate: %v", err)
				}
			}
		})
	}
}

// TestBadConfig has the mistakes that only show when the config is
// provisioned, as `caddy validate` does: closed means not loading.
func TestBadConfig(t *testing.T) {
	const global = "ledger memory i_accept_loss\n facilitator fake http://127.0.0.1:1"
	const site = "accept base-sepolia usdc " + gate.PayTo + "\nfacilitator fake\n"
	t.Setenv("PAYWALL_TEST_EMPTY", "")
	for name, tc := range map[string]struct{ global, site, want string }{
		"unknown facilitator":   {global, "accept base-sepolia usdc " + gate.PayTo + "\nfacilitator other\nprice /x $1", `unknown facilitator "other"`},
		"no development chain":  {global, "accept base-sepolia usdc " + gate.PayTo + "\nfacilitator dev\nprice /x $1", "this build has no development chain"},
		"no facilitator":        {"ledger memory i_accept_loss", "accept base usdc " + gate.PayTo + "\nprice /x $1", "no facilitator is defined"},
		"nothing accepted":      {global, "facilitator fake\nprice /x $1", "nothing is accepted"},
		"no price":              {global, site, "no price line"},
		"free only":             {global, site + "free /x", "no price line"},
		"zero":                  {global, site + "price /x $0", "zero"},
		"too fine":              {global, site + "price /x $0.0000001", "0.0000001"},
		"negative":              {global, site + "price /x $-1", ""},
		"comma":                 {global, site + "price /x $0,01", ""},
		"wrong currency":        {global, site + "price /x 0.02 eurc", "eurc"},
		"unknown network":       {global, "accept nowhere usdc " + gate.PayTo + "\nfacilitator fake\nprice /x $1", "unknown network"},
		"unknown token":         {global, "accept base-sepolia doge " + gate.PayTo + "\nfacilitator fake\nprice /x $1", "doge"},
		"no checksum":           {global, "accept base-sepolia usdc " + strings.ToLower(gate.PayTo) + "\nfacilitator fake\nprice /x $1", gate.PayTo},
		"zero address":          {global, "accept base-sepolia usdc 0x0000000000000000000000000000000000000000\nfacilitator fake\nprice /x $1", "pay_to"},
		"token as payee":        {global, "accept base-sepolia usdc " + gate.USDC + "\nfacilitator fake\nprice /x $1", "token USDC itself"},
		"empty env":             {global, site + "price /x {env.PAYWALL_TEST_EMPTY}", "PAYWALL_TEST_EMPTY"},
		"unset env":             {global, site + "price /x {env.PAYWALL_TEST_UNSET}", "PAYWALL_TEST_UNSET"},
		"price from the query":  {global, site + "price /x {query.price}", "only {env.*} and {file.*}"},
		"payee from a header":   {global, "accept base-sepolia usdc {header.payee}\nfacilitator fake\nprice /x $1", "only {env.*} and {file.*}"},
		"exempt by no secret":   {global, site + "price /x $1\nexempt @m\n}\n@m header X-Key {env.PAYWALL_TEST_EMPTY}\nroute /none {", "PAYWALL_TEST_EMPTY"},
		"two prices":            {global, site + "price /x $1\nprice /X/ $2", "`price /x $1`"},
		"price against free":    {global, site + "price /x $1\nfree /x", "`free /x`"},
		"pattern with escape":   {global, site + "price /a%2fb $1", "%"},
		"pattern with braces":   {global, site + "price /{a} $1", ""},
		"double slash":          {global, site + "price /a//b $1", "//"},
		"bad glob":              {global, site + "price /a[/b $1", ""},
		"charge with first":     {global, site + "price /x $1 {\nsettle first\ncharge 200\n}", "charge"},
		"token listed twice":    {global, site + "accept base-sepolia usdc " + gate.PayTo + "\nprice /x $1", "listed twice"},
		"facilitator twice":     {global, "accept base-sepolia usdc " + gate.PayTo + "\nfacilitator fake fake\nprice /x $1", "named twice"},
		"plain http far away":   {"ledger memory i_accept_loss\nfacilitator fake http://facilitator.example", site + "price /x $1", "https"},
		"page is missing":       {global, site + "price /x $1\npage /nowhere.html", "page"},
		"public_url with path":  {global, site + "price /x $1\npublic_url https://a.example/b", "origin"},
		"family without a rule": {global, "accept stellar:testnet CBIELTK6YBZJU5UP2WWQEUCYKLPU6AUNZ2BQ4WWFEIE3USCIHMXQDAMA GABC {\ndecimals 7\npeg usd\n}\nfacilitator fake\nprice /x $1", "settle first"},
	} {
		t.Run(name, func(t *testing.T) {
			err := gate.Validate("{\nadmin off\npaywall {\n" + tc.global + "\n}\n}\nhttp://127.0.0.1:0 {\npaywall {\n" + tc.site + "\n}\nrespond ok\n}")
			if err == nil {
				t.Fatal("it loads")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v\ndoes not say %q", err, tc.want)
			}
		})
	}
}

func TestExampleAdapts(t *testing.T) {
	content, err := os.ReadFile("Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	if err := gate.Validate(string(content)); err != nil {
		t.Fatal(err)
	}
}

// FuzzCaddyfile: no directive makes the parser panic, and what adapts also
// provisions or says why not.
func FuzzCaddyfile(f *testing.F) {
	files, _ := filepath.Glob("testdata/adapt/*.caddyfiletest")
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		input, _, _ := strings.Cut(string(content), "----------\n")
		f.Add(input)
	}
	f.Fuzz(func(t *testing.T, input string) {
		if strings.Contains(input, "import") || strings.Contains(input, "{file.") {
			return // reads files
		}
		_, _, _ = caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), nil)
	})
}
