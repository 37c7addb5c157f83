package offer

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestQuotes: a requirement proves that a gateway with the same secret asked for it, on this
// line, lately, whatever the client has done to the spelling of its JSON; and nothing else.
func TestQuotes(t *testing.T) {
	var ours, theirs Quotes
	ours.use([]byte("the ledger's"))
	theirs.use([]byte("another ledger's"))
	asked := x402.Requirement{
		Scheme: "exact", Network: "eip155:84532", Amount: "10000", Asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
		PayTo: "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", MaxTimeoutSeconds: 300, Extra: jsontext.Value(`{"name":"USDC","version":"2"}`),
	}
	o := &Offer{of: &Offers{}, requirements: []x402.Requirement{asked}}
	now := time.Unix(1_800_000_007, 0)
	challenge, err := x402.DecodeChallenge(o.Challenge(&ours, "line", now).Header("https://shop.example/x", ""))
	if err != nil {
		t.Fatal(err)
	}
	back, err := json.Marshal(challenge.Accepts[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		accepted string
		line     string
		after    time.Duration
		quotes   *Quotes
		fails    bool
	}{
		"as it was":               {},
		"spelled otherwise":       {accepted: strings.NewReplacer(`,`, ` , `, `"name":"USDC"`, `"name" : "\u0055SDC"`).Replace(string(back))},
		"at its end":              {after: 330 * time.Second},
		"by a clock that is slow": {after: -90 * time.Second},
		"too late":                {after: 400 * time.Second, fails: true},
		"long before":             {after: -200 * time.Second, fails: true},
		"on another line":         {line: "other", fails: true},
		"of another ledger":       {quotes: &theirs, fails: true},
		"without a secret":        {quotes: new(Quotes), fails: true},
		"for less":                {accepted: strings.Replace(string(back), `"10000"`, `"1000"`, 1), fails: true},
		"to another payee":        {accepted: strings.Replace(string(back), asked.PayTo, asked.Asset, 1), fails: true},
		"of another domain":       {accepted: strings.Replace(string(back), `"USDC"`, `"USD Coin"`, 1), fails: true},
		"with a quote of nothing": {accepted: strings.Replace(string(back), `"quote":"`, `"quote":"x`, 1), fails: true},
		"without a quote":         {accepted: strings.Replace(string(back), `"quote"`, `"other"`, 1), fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.accepted == "" {
				tt.accepted = string(back)
			} else if tt.accepted == string(back) {
				t.Fatal("nothing was changed")
			}
			if tt.line == "" {
				tt.line = "line"
			}
			if tt.quotes == nil {
				tt.quotes = &ours
			}
			chosen, err := (&x402.Payment{Version: x402.V2, Accepted: jsontext.Value(tt.accepted)}).Chosen()
			if err != nil {
				t.Fatal(err)
			}
			if ok := tt.quotes.proves(chosen, tt.line, now.Add(tt.after)); ok == tt.fails {
				t.Errorf("%s: %v", chosen.Quote, ok)
			}
		})
	}
}

// TestChallengesWithQuotes: a line's challenge stays the same for a while; each line has its
// own, no version 1 entry has one, and what is offered is otherwise the same.
func TestChallengesWithQuotes(t *testing.T) {
	option, err := NewOption(Accept{Network: "base-sepolia", Asset: "usdc", PayTo: "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"}, mustParse(t, "$0.01"), "exact")
	if err != nil {
		t.Fatal(err)
	}
	r, _ := option.with(nil, false)
	o := &Offer{of: &Offers{About: About{Help: "https://a.example/help"}}, requirements: []x402.Requirement{r}, options: []*Option{option}}
	if o.Template, err = x402.NewTemplate(o.requirements, "", "", nil); err != nil {
		t.Fatal(err)
	}
	o.Template = o.Template.Say(o.words())
	var quotes Quotes
	now := time.Unix(1_800_000_000, 0)
	if o.Challenge(&quotes, "a", now) != o.Template {
		t.Error("a quote without a secret")
	}
	quotes.use([]byte("secret"))
	if o.Challenge(&quotes, "", now) != o.Template {
		t.Error("a quote for a line that does not know where it is")
	}
	first := o.Challenge(&quotes, "a", now)
	if again := o.Challenge(&quotes, "a", now.Add(quoteEvery-time.Second)); again != first {
		t.Error("made anew")
	}
	for name, other := range map[string]*x402.Template{
		"another line": o.Challenge(&quotes, "b", now),
		"later":        o.Challenge(&quotes, "a", now.Add(quoteEvery)),
	} {
		if other.Header("https://a.example/", "") == first.Header("https://a.example/", "") {
			t.Errorf("%s: the same", name)
		}
	}
	body := string(first.AppendBody(nil, "https://a.example/", ""))
	if body != string(o.Template.AppendBody(nil, "https://a.example/", "")) || !strings.Contains(body, `"price":"0.01 USDC on Base Sepolia (test money)","help":"https://a.example/help"`) {
		t.Error(body)
	}
}

// TestQuotesOutliveALedgerThatPanics: nobody waits for it, and quotes are made once it has
// told its secret.
func TestQuotesOutliveALedgerThatPanics(t *testing.T) {
	q := NewQuotes()
	asked := 0
	q.Learn(t.Context(), func(context.Context) ([]byte, error) {
		if asked++; asked == 1 {
			panic("a bug")
		}
		select {
		case <-q.tried:
		default:
			t.Error("payers wait for a second try")
		}
		return []byte("secret"), nil
	})
	if q.key.Load() == nil || asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

func mustParse(t *testing.T, s string) money.Money {
	t.Helper()
	m, err := money.ParseMoney(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
