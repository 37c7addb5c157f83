package crawlers_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/crawlers"
)

// TestFactsAreWellFormed: the table that comes with the paywall is one: NewTable refuses
// unknown kinds, a token twice, what is no domain, and lists that are not on https.
func TestFactsAreWellFormed(t *testing.T) {
	date, agents, err := crawlers.Facts()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse(time.DateOnly, date); err != nil {
		t.Errorf("the date of the table: %v", err)
	}
	table, err := crawlers.NewTable(date, agents)
	if err != nil {
		t.Fatal(err)
	}
	if len(agents) < 190 {
		t.Errorf("%d rows", len(agents))
	}
	kinds := map[crawlers.Kind]int{}
	for _, a := range agents {
		kinds[a.Kind]++
		for _, source := range a.Ranges {
			if !strings.HasPrefix(source, "https://") {
				t.Errorf("%s: a file in the table: %s", a.Token, source)
			}
		}
		if a.Token != strings.TrimSpace(a.Token) || a.Operator != strings.TrimSpace(a.Operator) {
			t.Errorf("%q has spaces around it", a.Token)
		}
		// Each row can be found by its own token, in each letter case.
		for _, userAgent := range []string{a.Token, strings.ToUpper(a.Token), "Mozilla/5.0 (compatible; " + a.Token + "/1.0; +https://bots.example)"} {
			if found := table.Find(userAgent); found == nil || found.Token != a.Token {
				t.Errorf("%q finds %v", userAgent, found)
			}
		}
	}
	for _, kind := range crawlers.Kinds() {
		if kinds[kind] == 0 {
			t.Errorf("no %s", kind)
		}
	}
}

func TestTableRefusesErrors(t *testing.T) {
	ok := crawlers.Crawler{Token: "ExampleBot", Kind: crawlers.Train}
	for name, rows := range map[string][]crawlers.Crawler{
		"no token":               {{Kind: crawlers.Train}},
		"token of a sign":        {{Token: "/x", Kind: crawlers.Train}},
		"a token with a break":   {{Token: "a\nb", Kind: crawlers.Train}},
		"a long token":           {{Token: strings.Repeat("a", 101), Kind: crawlers.Train}},
		"a kind as a token":      {{Token: "Search", Kind: crawlers.Train}},
		"no kind":                {{Token: "ExampleBot"}},
		"unknown kind":           {{Token: "ExampleBot", Kind: "training"}},
		"twice":                  {ok, {Token: "EXAMPLEBOT", Kind: crawlers.Search}},
		"an address as domain":   {{Token: "ExampleBot", Kind: crawlers.Train, RDNS: []string{"192.0.2.1"}}},
		"a URL as domain":        {{Token: "ExampleBot", Kind: crawlers.Train, Directories: []string{"https://bots.example"}}},
		"one label":              {{Token: "ExampleBot", Kind: crawlers.Train, RDNS: []string{"com"}}},
		"capitals in a domain":   {{Token: "ExampleBot", Kind: crawlers.Train, Directories: []string{"Bots.example"}}},
		"a port":                 {{Token: "ExampleBot", Kind: crawlers.Train, Directories: []string{"bots.example:444"}}},
		"ranges without TLS":     {{Token: "ExampleBot", Kind: crawlers.Train, Ranges: []string{"http://bots.example/x"}}},
		"ranges with a password": {{Token: "ExampleBot", Kind: crawlers.Train, Ranges: []string{"https://a:b@bots.example/x"}}},
	} {
		if _, err := crawlers.NewTable("", rows); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := crawlers.NewTable("", []crawlers.Crawler{ok}); err != nil {
		t.Error(err)
	}
}

const (
	chrome  = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36"
	firefox = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:149.0) Gecko/20100101 Firefox/149.0"
	gptBot  = "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)"
	google  = "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
)

func TestClaim(t *testing.T) {
	c := newChecker(t, crawlers.Config{})
	for userAgent, want := range map[string]string{
		gptBot:  "GPTBot train OpenAI claimed",
		google:  "Googlebot search Google claimed",
		chrome:  "   browser",
		firefox: "   browser",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1": "   browser",
		"Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko":                                                                   "   browser",
		"":                         "   unknown",
		"Mozilla/5.0":              "   unknown",
		"Mozilla/5.0 (compatible)": "   unknown",
		"Mozilla/5.0 (compatible; OwnBot/1.0) AppleWebKit/537.36": "   unknown",
		"curl/8.14.1":            "curl tool  tool",
		"Go-http-client/1.1":     "Go-http-client tool  tool",
		"python-requests/2.32.3": "python-requests tool  tool",
		"Java/21.0.4":            "Java/ tool  tool",
		"JavaScript":             "   unknown",
		"gptbot":                 "GPTBot train OpenAI claimed",
		"NotGPTBot/1.0":          "   unknown",
		"GPTBots":                "   unknown",
		"GPT Bot":                "   unknown",
		"x_GPTBot":               "   unknown",
		"ÄGPTBot":                "   unknown",
		"Googlebot-Image/1.0":    "Googlebot-Image search Google claimed",
		"Googlebot-Video/1.0":    "Googlebot search Google claimed",
		"AdsBot-Google (+http://www.google.com/adsbot.html)":                                                                                "AdsBot-Google monitor Google claimed",
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/148.0 Safari/537.36":                         "HeadlessChrome tool  tool",
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/148.0 Safari/537.36 (compatible; CCBot/2.0)": "CCBot train Common Crawl Foundation claimed",
		"CCBot/2.0 python-httpx/0.28":        "CCBot train Common Crawl Foundation claimed",
		"meta-externalagent/1.1":             "meta-externalagent train Meta claimed",
		"ChatGPT-User/1.0; +https://x":       "ChatGPT-User assistant OpenAI claimed",
		strings.Repeat(" ", 508) + "GPTBot":  "   unknown", // cut in the middle
		strings.Repeat("x ", 250) + "GPTBot": "GPTBot train OpenAI claimed",
		strings.Repeat("GPTBot", 5000):       "   unknown",
		"\x00\xff GPTBot\x00":                "GPTBot train OpenAI claimed",
	} {
		got := c.Claim(&http.Request{Header: http.Header{"User-Agent": {userAgent}}})
		if text := fmt.Sprintf("%s %s %s %s", got.Name, got.Kind, got.Operator, got.Proof); text != want {
			t.Errorf("%.100q is %q, want %q", userAgent, text, want)
		}
	}
}

// TestOperatorAddsAgents: rows of the operator's own, and others instead of ours. What a
// row does not say is as in the table.
func TestOperatorAddsAgents(t *testing.T) {
	c := newChecker(t, crawlers.Config{Agents: []crawlers.Crawler{
		{Token: "OwnBot", Kind: crawlers.Monitor, Operator: "Own"},
		{Token: "gptbot", Kind: crawlers.Search},
	}})
	for userAgent, want := range map[string]crawlers.Client{
		"OwnBot/1.0": {Name: "OwnBot", Kind: crawlers.Monitor, Operator: "Own", Proof: crawlers.Claimed},
		gptBot:       {Name: "GPTBot", Kind: crawlers.Search, Operator: "OpenAI", Proof: crawlers.Claimed},
	} {
		if got := c.Claim(&http.Request{Header: http.Header{"User-Agent": {userAgent}}}); got != want {
			t.Errorf("%s is %+v", userAgent, got)
		}
	}
	row, ok := c.Table().Named("GPTBOT")
	if !ok || len(row.Ranges) != 1 {
		t.Errorf("the row lost its ranges: %+v", row)
	}
}

// TestClaimAllocatesNothing: what every request costs, whatever it calls itself.
func TestClaimAllocatesNothing(t *testing.T) {
	c := newChecker(t, crawlers.Config{})
	for _, userAgent := range []string{chrome, google, strings.Repeat("GPTBot/1.0 googlebot-x ", 10000)} {
		r := &http.Request{Header: http.Header{"User-Agent": {userAgent}}}
		if n := testing.AllocsPerRun(100, func() { c.Claim(r) }); n > 0 {
			t.Errorf("%.40s: %v allocations", userAgent, n)
		}
	}
}

func newChecker(t testing.TB, config crawlers.Config) *crawlers.Checker {
	t.Helper()
	c, err := crawlers.New(config, crawlers.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func FuzzFind(f *testing.F) {
	for _, seed := range []string{chrome, google, gptBot, "", "Java/", "Brightbot 1.0", "\xff"} {
		f.Add(seed)
	}
	date, agents, err := crawlers.Facts()
	if err != nil {
		f.Fatal(err)
	}
	table, err := crawlers.NewTable(date, agents)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, userAgent string) {
		found := table.Find(userAgent)
		if found != nil && !strings.Contains(strings.ToLower(userAgent), strings.ToLower(found.Token)) {
			t.Errorf("%q finds %s", userAgent, found.Token)
		}
	})
}

func BenchmarkClaim(b *testing.B) {
	c := newChecker(b, crawlers.Config{})
	for name, userAgent := range map[string]string{"browser": chrome, "crawler": google, "giant": strings.Repeat("GPTBot/1.0 googlebot-x ", 10000)} {
		r := &http.Request{Header: http.Header{"User-Agent": {userAgent}}}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.Who(r, netip.Addr{})
			}
		})
	}
}
