package paywall

import (
	"slices"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/go-json-experiment/json"
)

// FuzzCaddyfile: no paywall block makes the adapter panic, and what adapts has
// a path and an amount in each price, and a path in each free line.
func FuzzCaddyfile(f *testing.F) {
	for _, s := range []string{
		"accept base usdc 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\nfacilitator own cdp\nprice /a/* $0.01 \"One\"\nfree /b",
		"price POST GET @m /a *.pdf 0.02 eurc {\n settle first\n charge 200 201\n mime a/b\n accept a b c {\n decimals 6\n name N\n version 2\n transfer permit2\n peg usd\n amount 1\n }\n}",
		"otherwise $1\nsettle on_success\npublic_url https://a.example\ncors off\npage a.html\nretry_window 1h\nupstream_headers",
		"price", "price /a", "price $1", "free", "free {$X}", "price /a {\n}", "price /a $1 {", "accept\n}", "otherwise refuse refuse", "price \"\" $1", "price /a $1 \"x\" y",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, block string) {
		adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte("{\n paywall {\n ledger memory i_accept_loss\n }\n}\nhttp://a.example {\n @m header X y\n paywall {\n"+block+"\n }\n}"), nil)
		if err != nil {
			return
		}
		var config any
		if err := json.Unmarshal(adapted, &config); err != nil {
			t.Fatal(err)
		}
		walk(config, func(handler map[string]any) {
			if handler["handler"] != "paywall" {
				return
			}
			for _, list := range []string{"prices", "free"} {
				lines, _ := handler[list].([]any)
				for _, line := range lines {
					line := line.(map[string]any)
					paths, _ := line["paths"].([]any)
					if len(paths) == 0 || slices.Contains(paths, any("")) {
						t.Errorf("%s without a path: %v of\n%s", list, line, block)
					}
					if amount, _ := line["amount"].(string); list == "prices" && amount == "" {
						t.Errorf("price without an amount: %v of\n%s", line, block)
					}
				}
			}
		})
	})
}

func walk(v any, found func(map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		found(v)
		for _, member := range v {
			walk(member, found)
		}
	case []any:
		for _, member := range v {
			walk(member, found)
		}
	}
}
