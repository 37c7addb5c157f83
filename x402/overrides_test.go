package x402

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// The official server's table: where what it sends is a legal charge, we charge
// the same, and the rest is an error here.
func TestChargeLikeOfficialServer(t *testing.T) {
	b, err := os.ReadFile("testdata/settlement-overrides.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		SettlementOverride struct {
			RequirementAmount string
			AssetDecimals     int
			Cases             []struct{ Override, SentToFacilitator string }
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	o := file.SettlementOverride
	u := Usage{Maximum: o.RequirementAmount, Decimals: o.AssetDecimals, Dollars: true}
	refused := map[string]string{
		"33.333%": "decimals", "150%": "above the maximum", "abc": "number", "-5": "number",
		"1.5": "decimals", "$0.123456789": "above the maximum", "$1e3": "number", "100002": "above the maximum",
	}
	if len(o.Cases) != 16 {
		t.Fatalf("%d cases", len(o.Cases))
	}
	for _, c := range o.Cases {
		header, err := json.Marshal(map[string]string{"amount": c.Override})
		if err != nil {
			t.Fatal(err)
		}
		got, err := u.Charge(string(header))
		if why, bad := refused[c.Override]; bad {
			if err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("%s: %q, %v; want an error about %q", c.Override, got, err, why)
			}
			continue
		}
		if err != nil || got != c.SentToFacilitator {
			t.Errorf("%s: %q, %v; want %s", c.Override, got, err, c.SentToFacilitator)
		}
	}
}

func TestCharge(t *testing.T) {
	const most = "115792089237316195423570985008687907853269984665640564039457584007913129639935"
	six := Usage{Maximum: "500000", Decimals: 6, Dollars: true}
	for header, tt := range map[string]struct {
		usage Usage
		want  string // "": an error
	}{
		`{"amount":"500000"}`:          {six, "500000"},
		`{"amount":"500001"}`:          {six, ""},
		`{"amount":"007"}`:             {six, "7"},
		`{"amount":"0"}`:               {six, "0"},
		`{"amount":"0%"}`:              {six, "0"},
		`{"amount":"100.00%"}`:         {six, "500000"},
		`{"amount":"100.01%"}`:         {six, ""},
		`{"amount":"99.99%"}`:          {Usage{Maximum: "3", Decimals: 6}, "2"},
		`{"amount":"99.99%","more":1}`: {Usage{Maximum: most, Decimals: 18}, "115780510028392463804028627910187039062484657667173999983053638249512338326971"},
		`{"amount":"$0.5"}`:            {six, "500000"},
		`{"amount":"$0.5000019"}`:      {six, ""},
		`{"amount":"$0.4999999"}`:      {six, "499999"},
		`{"amount":"$00.4"}`:           {six, "400000"},
		`{"amount":"$1.9"}`:            {Usage{Maximum: "5", Decimals: 0, Dollars: true}, "1"},
		`{"amount":"$0.4"}`:            {Usage{Maximum: "500000", Decimals: 6}, ""},
		`{"amount":"$-0.4"}`:           {six, ""},
		`{"amount":"$.4"}`:             {six, ""},
		`{"amount":"$1."}`:             {six, ""},
		`{"amount":"$"}`:               {six, ""},
		`{"amount":"$ 0.1"}`:           {six, ""},
		`{"amount":"%"}`:               {six, ""},
		`{"amount":"$5%"}`:             {six, ""},
		`{"amount":"5 %"}`:             {six, ""},
		`{"amount":"+5"}`:              {six, ""},
		`{"amount":" 5"}`:              {six, ""},
		`{"amount":"5 "}`:              {six, ""},
		`{"amount":"0x5"}`:             {six, ""},
		`{"amount":"5_0"}`:             {six, ""},
		`{"amount":"٥"}`:               {six, ""},
		`{"amount":""}`:                {six, ""},
		`{"amount":null}`:              {six, ""},
		`{"amount":5}`:                 {six, ""},
		`{"amount":["5"]}`:             {six, ""},
		`{"Amount":"5"}`:               {six, ""},
		`{"amount":"5","amount":"6"}`:  {six, ""},
		`{"amount":"5"}{"amount":"6"}`: {six, ""},
		`{}`:                           {six, ""},
		`null`:                         {six, ""},
		`"5"`:                          {six, ""},
		`5`:                            {six, ""},
		``:                             {six, ""},
		`{"amount":"` + most + `"}`:    {Usage{Maximum: most}, most},
		`{"amount":"1` + most + `"}`:   {Usage{Maximum: most}, ""},
		`{"amount":"$` + most + `"}`:   {Usage{Maximum: most, Decimals: 18, Dollars: true}, ""},
		`{"amount":"1"` + strings.Repeat(" ", 1024) + `}`: {six, ""},
	} {
		got, err := tt.usage.Charge(header)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%.60s: %q, %v; want %q", header, got, err, tt.want)
		}
	}
}
