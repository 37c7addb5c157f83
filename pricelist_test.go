package paywall_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/client"
)

const priceListConfig = `{
	admin off
	paywall {
		ledger memory i_accept_loss
		facilitator own http://127.0.0.1:1
		accept base-sepolia usdc 0x209693Bc6afc0C5328bA36FaF03C514EF312287C
	}
}
http://shop.example {
	@bots crawler train
	@keys header X-Api-Key secret
	@p query p=*
	paywall {
		price /articles/* $0.01 "One article"
		price @bots /articles/7 $0.05
		price POST /articles/7 $0.10
		price /later/* $1 {
			observe
		}
		price POST /v1/chat upto $0.5
		free /articles/sample
		free @p /articles/*
		exempt @keys
	}
}
http://all.example {
	paywall {
		otherwise 0.002 usdc
		free /robots.txt
	}
}
http://shut.example {
	paywall {
		price /a $0.01
		otherwise refuse
	}
}
`

// What `caddy paywall prices` says of a request is what the gate would say, and why.
func TestPricesSaysWhichLineDecidesAndWhy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte(priceListConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		code int
		says []string
	}{
		"the lists": {nil, 0, []string{
			"price /articles/* $0.01", " 0.01 USDC on base-sepolia to 0x209693Bc6afc0C5328bA36FaF03C514EF312287C, through own\n",
			"up to 0.5 USDC", "exempt @keys", "free @p /articles/*", "passes, and is counted", "otherwise refuse", "otherwise 0.002 usdc", "otherwise free", "shop.example (",
		}},
		"less specific": {[]string{"-A", "curl", "http://shop.example/articles/7"}, 0, []string{
			"402, costs 0.01 USDC on base-sepolia, by `price /articles/* $0.01`\n",
			"not `price @bots /articles/7 $0.05`  its matcher does not match\n",
			"not `price POST /articles/7 $0.10`   it is for other methods\n",
		}},
		"a client": {[]string{"-A", "GPTBot", "http://shop.example/articles/7"}, 0, []string{
			"by `price @bots /articles/7 $0.05`\n", "`price /articles/* $0.01`       its path is less specific\n",
		}},
		"kinds of client":   {[]string{"http://shop.example/articles/7"}, 0, []string{"  for browser, search, ", "  for train: 402, costs 0.05 USDC"}},
		"a method":          {[]string{"-X", "POST", "http://shop.example/articles/7"}, 0, []string{"by `price POST /articles/7 $0.10`\n"}},
		"another method":    {[]string{"http://shop.example/v1/chat"}, 0, []string{"405, there are lines for other methods only (POST)\n", "the same for a browser and every kind of crawler"}},
		"an odd path":       {[]string{"http://shop.example/x/..%2farticles%2f7"}, 0, []string{"402, costs 0.01"}},
		"free":              {[]string{"http://shop.example/articles/sample"}, 0, []string{"passes, free, by `free /articles/sample`\n", "`price /articles/* $0.01`  its path is less specific"}},
		"a query":           {[]string{"http://shop.example/articles/x?p=1"}, 0, []string{"passes, free, by `free @p /articles/*`\n", "`price /articles/* $0.01`  a line with a matcher that matches goes before it"}},
		"observed":          {[]string{"http://shop.example/later/x"}, 0, []string{"passes, and is counted as worth 1 USD, by `price /later/* $1`"}},
		"exempt":            {[]string{"-H", "X-Api-Key: secret", "http://shop.example/articles/7"}, 0, []string{"passes, whatever it would cost, by `exempt @keys`"}},
		"otherwise":         {[]string{"http://all.example"}, 0, []string{"402, costs 0.002 USDC on base-sepolia, by `otherwise 0.002 usdc`"}},
		"not for sale":      {[]string{"http://shut.example/b"}, 0, []string{"403, is not for sale, by `otherwise refuse`"}},
		"no such site":      {[]string{"http://other.example/"}, 3, []string{"no paywall is for other.example; there are: all.example, shop.example, shut.example"}},
		"no URL":            {[]string{"shop.example/x"}, 2, []string{`"shop.example/x" is no URL such as https://shop.example/articles/7`}},
		"no header":         {[]string{"-H", "x", "http://shop.example/"}, 2, []string{`want "Name: value"`}},
		"no address":        {[]string{"--from", "x", "http://shop.example/"}, 2, []string{"--from"}},
		"two URLs":          {[]string{"http://a", "http://b"}, 2, []string{"one URL at a time"}},
		"an unknown format": {[]string{"--format", "xml"}, 2, []string{"want text or json"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errOut := command(t, append([]string{"prices", "--config", file}, tc.args...)...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			said := out + errOut
			for _, want := range tc.says {
				if !strings.Contains(said, want) {
					t.Errorf("%q is not in\n%s", want, said)
				}
			}
		})
	}
	_, said, _ := command(t, "prices", "--config", file, "--format", "json", "http://shop.example/articles/7")
	var found []struct {
		Status   int
		Line     string
		Beside   []struct{ Line, Why string }
		ByClient []struct{ Client, Line string } `json:"by_client"`
	}
	if err := json.Unmarshal([]byte(said), &found); err != nil || len(found) != 1 || found[0].Status != 402 || len(found[0].Beside) != 3 || len(found[0].ByClient) < 8 {
		t.Errorf("%v %s", err, said)
	}
}

// A new key is in a file for its owner alone, in which `pay` and `signer` take it; it is
// printed nowhere, and no file is overwritten.
func TestKeyNewMakesAKeyThatOnlyItsOwnerHas(t *testing.T) {
	file := filepath.Join(t.TempDir(), "payer.key")
	code, said, hint := command(t, "key", "new", "--out", file)
	if code != 0 {
		t.Fatal(hint)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	key, err := client.ParseKey(string(content))
	if err != nil || said != key.Address()+"\n" {
		t.Errorf("%v: %s", err, said)
	}
	if digits := strings.TrimSpace(string(content)); len(digits) != 64 || strings.Contains(said+hint, digits) {
		t.Error("the key is printed, or is none")
	}
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if code, _, why := command(t, "key", "new", "--out", file); code != 1 || !strings.Contains(why, "is there already") {
		t.Error("it is made again:", why)
	}
	link := filepath.Join(t.TempDir(), "link")
	if os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), link) == nil {
		if code, _, _ := command(t, "key", "new", "--out", link); code != 1 {
			t.Error("it follows a link")
		}
	}
	if again, err := os.ReadFile(file); err != nil || !bytes.Equal(again, content) {
		t.Error("the key of before is lost")
	}
	for _, args := range [][]string{{"key", "new", "x"}, {"key", "new", "--out", ""}, {"key", "nope"}} {
		if code, _, _ := command(t, args...); code != 2 {
			t.Errorf("%v is fine", args)
		}
	}
	// As the gas key of the embedded facilitator.
	config := filepath.Join(t.TempDir(), "Caddyfile")
	text := "{\nadmin off\npaywall {\nledger memory i_accept_loss\nfacilitator own evm {\nnetwork base-sepolia {\nrpc http://127.0.0.1:1\nsigner {file." + file + "}\n}\n}\n}\n}\nhttp://a.example {\npaywall {\naccept base-sepolia usdc 0x209693Bc6afc0C5328bA36FaF03C514EF312287C\nprice /x $1\n}\n}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, said, why := command(t, "prices", "--config", config); code != 0 || !strings.Contains(said, "through own") {
		t.Errorf("%s%s", said, why)
	}
}
