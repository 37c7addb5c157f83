package paywall_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// TestWarnings: what loads and is probably not meant is said at load, and
// nothing is said where there is nothing to say. A config that somebody has written in
// JSON hears the same as a Caddyfile.
func TestWarnings(t *testing.T) {
	t.Setenv("PAYWALL_TEST_RPC", "https://rpc.example/v2/AbCdEf0123456789AbCdEf0123456789")
	const quiet = "facilitator fake http://127.0.0.1:1 {\nrpc base-sepolia http://127.0.0.1:1\n}"
	const site = "accept base-sepolia usdc " + gate.PayTo + "\nfacilitator fake\n"
	const price = "price /x $0.01"
	mixed := "accept base usdc " + gate.PayTo + "\naccept base-sepolia usdc " + gate.PayTo + "\nfacilitator fake\n"
	for name, tt := range map[string]struct {
		global, site, before, matcher, want string
	}{
		"nothing":                  {global: quiet, site: site + price},
		"rpc from env":             {global: "facilitator fake http://127.0.0.1:1 {\nrpc base-sepolia {env.PAYWALL_TEST_RPC}\n}", site: site + price},
		"long description":         {global: quiet, site: site + price + ` "` + strings.Repeat("long ", 101) + `"`, want: "description is longer"},
		"large challenge":          {global: quiet, site: site + price + ` "` + strings.Repeat("long ", 1200) + `"`, want: "challenge is near 8 kB"},
		"dear":                     {global: quiet, site: site + "price /x $1.01", want: "prices above 1 USD: @x402/fetch"},
		"dear for some":            {global: quiet, site: site + "price /x $1", want: "prices above 0.10 USD: x402-fetch (version 1) and Cloudflare's agents"},
		"ten cents":                {global: quiet, site: site + "price /x $0.10"},
		"a cheap one elsewhere":    {global: quiet, site: site + "price /x $0.0009"},
		"unknown token":            {global: quiet, site: "accept base-sepolia 0x5FbDB2315678afecb367f032d93F642f64180aa3 " + gate.PayTo + " {\ndecimals 6\nname A\nversion 1\npeg usd\n}\nfacilitator fake\n" + price, want: "stock clients refuse this token"},
		"mixed in one price":       {global: quiet, site: mixed + price, want: "accepted for one price"},
		"mixed in two":             {global: quiet, site: site + price + "\nprice /y $0.01 {\naccept base usdc " + gate.PayTo + "\n}", want: "accepted by one server"},
		"no rpc":                   {global: "facilitator fake http://127.0.0.1:1", site: site + price, want: "without `rpc`"},
		"token in the clear":       {global: "facilitator fake http://127.0.0.1:1 {\nauth bearer canary\nrpc base-sepolia http://127.0.0.1:1\n}", site: site + price, want: "credentials of the facilitator are in the config in the clear"},
		"key in the clear":         {global: "facilitator fake http://127.0.0.1:1 {\nauth header X-Key 0x" + strings.Repeat("ab", 32) + "\nrpc base-sepolia http://127.0.0.1:1\n}", site: site + price, want: "looks like a secret in the clear"},
		"key in a URL":             {global: "facilitator fake http://127.0.0.1:1 {\nrpc base-sepolia http://127.0.0.1:1/v3/AbCdEf0123456789AbCdEf0123456789\n}", site: site + price, want: "looks like a secret in the clear"},
		"key in a query":           {global: "facilitator fake http://127.0.0.1:1 {\nrpc base-sepolia http://127.0.0.1:1/?key=AbCdEf0123456789AbCdEf0123456789\n}", site: site + price, want: "looks like a secret in the clear"},
		"password of the ledger":   {global: quiet + "\nledger postgres postgres://me:canary@127.0.0.1:1/db?sslmode=disable", site: site + price, want: "the database password is in the config"},
		"access log":               {global: quiet, site: site + price, before: "log {\noutput discard\n}\nlog other {\noutput file LOG2\n}", want: "writes payment headers in the clear"},
		"payer's choice is free":   {global: quiet, site: site + price + "\nfree @m /x", before: "@m header A b", want: "a payer can choose"},
		"payer's choice inside":    {global: quiet, site: site + price + "\nfree @m /x", before: "@m not header A b", want: "a payer can choose"},
		"a cookie is free":         {global: quiet, site: site + price + "\nfree @m /x", before: "@m vars {cookie.a} b", want: "a payer can choose"},
		"a network is free":        {global: quiet, site: site + price + "\nfree @m /x", before: "@m remote_ip 192.0.2.0/24"},
		"GET of a POST":            {global: quiet, site: site + "price POST /x $0.01", want: "write `free GET /x`"},
		"GET beside a POST":        {global: quiet, site: site + "price POST /x $0.01\nfree GET /x"},
		"GET below a POST":         {global: quiet, site: site + "price POST /x/y $0.01\nprice @m /* $0.01", before: "@m remote_ip 192.0.2.7"},
		"GET and POST":             {global: quiet, site: site + "price GET POST /x $0.01"},
		"GET by a glob":            {global: quiet, site: site + "price POST PUT /x/*/[ab] $0.01\nprice /y $0.01", want: "write `free GET /x/*/[ab]`"},
		"a key is exempt":          {global: quiet, site: site + price + "\nexempt @m", before: "@m header A b", want: "and so whether he pays"},
		"a query is exempt":        {global: quiet, site: site + price + "\nexempt @m", before: "@m query a=b", want: "and so whether he pays"},
		"a network is exempt":      {global: quiet, site: site + price + "\nexempt @m", before: "@m remote_ip 192.0.2.0/24"},
		"a crawler is free":        {global: quiet, site: site + price + "\nfree @m /x", before: "@m crawler search", want: "a payer can choose"},
		"no crawler is free":       {global: quiet, site: site + price + "\nfree @m /x", before: "@m not crawler train", want: "a payer can choose"},
		"not verified is free":     {global: quiet, site: site + price + "\nfree @m /x", before: "@m not crawler train verified", want: "a payer can choose"},
		"a verified one is free":   {global: quiet + "\ncrawlers {\nranges Googlebot RANGES\n}", site: site + price + "\nfree @m /x", before: "@m crawler Googlebot verified"},
		"a client is free":         {global: quiet, site: site + price + "\nfree @m /x", before: "@m vars {http.paywall.client} Googlebot", want: "a payer can choose"},
		"a crawler has a price":    {global: quiet, site: site + price + "\nprice @m /y $0.01", before: "@m crawler train"},
		"crawler before the block": {global: quiet, site: site + price, before: "@m crawler train", matcher: "@m", want: "past the paywall"},
		"query by a placeholder":   {global: quiet, site: site + price + "\nprice @m /y $0.01", before: "@m vars {query.p} 1", want: "reads the query in one way only"},
		"query by expression":      {global: quiet, site: site + price + "\nprice @m /y $0.01", before: "@m expression query({'p': '*'})", want: "reads the query in one way only"},
		"query by the matcher":     {global: quiet, site: site + price + "\nprice @m /y $0.01", before: "@m query p=*"},
		"query of the front page":  {global: quiet, site: site + price + "\nprice @m / $0.01", before: "@m query p=*", want: "at any path"},
		"query of all":             {global: quiet, site: site + price + "\nprice @m /* $0.01", before: "@m query p=*"},
		"client before the block":  {global: quiet, site: site + price, before: "@m header User-Agent *bot*", matcher: "@m", want: "past the paywall"},
		"network before the block": {global: quiet, site: site + price, before: "@m not remote_ip 10.0.0.0/8", matcher: "@m", want: "past the paywall"},
		"method before the block":  {global: quiet, site: site + price, before: "@m method GET POST", matcher: "@m", want: "a method matcher before the block"},
		"host before the block":    {global: quiet, site: site + price, before: "@m host example.com", matcher: "@m"},
		"path before the block":    {global: quiet, site: site + price, before: "PATH", want: "a path matcher before the block"},
	} {
		matcher := tt.matcher
		if tt.before == "PATH" {
			tt.before, matcher = "", "/x/*"
		}
		for _, format := range []string{"Caddyfile", "JSON"} {
			t.Run(name+" in a "+format, func(t *testing.T) {
				log, ranges := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "ranges")
				if err := os.WriteFile(ranges, []byte("192.0.2.0/28\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				global := strings.ReplaceAll(tt.global, "RANGES", ranges)
				ledger := "ledger memory i_accept_loss\n"
				if strings.Contains(tt.global, "ledger ") {
					ledger = ""
				}
				before := strings.ReplaceAll(tt.before, "LOG2", filepath.Join(t.TempDir(), "access"))
				text := "{\nadmin off\npersist_config off\nlog {\noutput file " + log + "\nlevel WARN\n}\npaywall {\n" + ledger + global + "\n}\n}\nhttp://127.0.0.1:0 {\n" +
					before + "\npaywall " + matcher + " {\n" + tt.site + "\n}\nrespond ok\n}"
				if format == "JSON" {
					text = adaptedByHand(t, text)
				}
				// What is said while a Caddyfile is adapted goes to the log of before.
				if err := gate.Load("{\nadmin off\npersist_config off\nlog {\noutput file " + log + "\n}\n}"); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = caddy.Stop() })
				load := gate.Load
				if format == "JSON" {
					load = func(text string) error { return caddy.Load([]byte(text), true) }
				}
				if err := load(text); err != nil {
					t.Fatalf("%s\n%v", text, err)
				}
				content, err := os.ReadFile(log)
				if err != nil {
					t.Fatal(err)
				}
				var warned []string
				for line := range strings.Lines(string(content)) {
					if strings.Contains(line, `"level":"warn"`) && strings.Contains(line, "paywall") {
						warned = append(warned, line)
					}
				}
				said := strings.Join(warned, "")
				if tt.want == "" && said != "" || !strings.Contains(said, tt.want) {
					t.Errorf("want %q, got: %s", tt.want, said)
				}
				head, _, exempts := strings.Cut(text, "exempt @m")
				if where := fmt.Sprintf(`"where":"Caddyfile:%d"`, 1+strings.Count(head, "\n")); exempts && said != "" && format == "Caddyfile" && !strings.Contains(said, where) {
					t.Errorf("it does not say where: %s", said)
				}
				if strings.Contains(said, "canary") || strings.Contains(said, "abababab") || strings.Contains(said, "AbCdEf") {
					t.Errorf("a secret shows: %s", said)
				}
				for _, line := range warned {
					if strings.Count(said, line[strings.Index(line, `"msg"`):]) > 1 {
						t.Errorf("said twice: %s", line)
					}
				}
			})
		}
	}
}

// adaptedByHand is the JSON of a Caddyfile as somebody would write it: of lines in a file
// it says nothing.
func adaptedByHand(t *testing.T, caddyfile string) string {
	t.Helper()
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`,"where":"[^"]*"|"where":"[^"]*",`).ReplaceAllString(string(adapted), "")
}

// TestLimitsAreToldOnceALoad: many dear lines are one line in the log, which names the first.
func TestLimitsAreToldOnceALoad(t *testing.T) {
	w := gate.New(t, "price /a $0.25\nprice /b $2\nprice /c $3\nprice /paid/* $0.01")
	for text, want := range map[string]string{"prices above 0.10 USD": `"prices":3`, "prices above 1 USD": `"prices":2`} {
		if n := w.Logged(text); n != 1 {
			t.Errorf("%s: %d lines", text, n)
		}
		if w.Logged(want) != 1 {
			t.Errorf("%s is not in the log", want)
		}
	}
}
