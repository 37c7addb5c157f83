package protocols

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

const mozilla = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"

// A challenge says the price in words, in the language that is asked for; the clients that
// pay get what they always got.
func TestAChallengeSpeaksTheLanguageThatIsAskedFor(t *testing.T) {
	w := gate.New(t, "contact https://shop.example/help?a=1&b=2\nprice /paid/* $0.01 \"One article\"")
	for name, tc := range map[string]struct {
		accept, agent, payment string
		media                  string
	}{
		"nothing":              {"", "", "", "application/json"},
		"anything":             {"*/*", "", "", "application/json"},
		"axios":                {"application/json, text/plain, */*", "", "", "application/json"},
		"markdown":             {"text/markdown", "", "", "text/markdown; charset=utf-8"},
		"an agent":             {"text/markdown, text/html, */*", "Claude-User", "", "text/markdown; charset=utf-8"},
		"markdown before text": {"text/plain, text/markdown", "", "", "text/markdown; charset=utf-8"},
		"text":                 {"text/plain", "", "", "text/plain; charset=utf-8"},
		"text before all":      {"text/plain, */*;q=0.8", "curl", "", "text/plain; charset=utf-8"},
		"JSON before text":     {"text/plain;q=0.5, application/json", "", "", "application/json"},
		"text before JSON":     {"application/json;q=0.5, text/plain", "", "", "text/plain; charset=utf-8"},
		"no text":              {"text/plain;q=0, */*", "", "", "application/json"},
		"nonsense":             {"text/plain;q=x, text/markdown;q=7, , ;", "", "", "application/json"},
		"a person":             {"text/html,application/xhtml+xml,*/*;q=0.8", mozilla, "", "text/html; charset=utf-8"},
		"pays by version 1":    {"text/plain", "", "X-PAYMENT", "application/json"},
		"a paying page":        {"text/html", mozilla, "PAYMENT-SIGNATURE", "application/json"},
	} {
		t.Run(name, func(t *testing.T) {
			header := []string{"Accept", tc.accept, "User-Agent", tc.agent}
			if tc.payment != "" {
				header = append(header, tc.payment, "junk")
			}
			res := w.Get("/paid/x", header...)
			if res.StatusCode != 402 || res.Header.Get("Content-Type") != tc.media || res.Header.Get("Payment-Required") == "" || res.Header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%v", res)
			}
			switch {
			case strings.HasPrefix(tc.media, "text/html"):
			case tc.media == "application/json":
				var body struct {
					X402Version                       int
					Accepts                           []map[string]any
					Price, Description, Help, Message string
				}
				if err := json.Unmarshal([]byte(res.Text), &body); err != nil || body.X402Version != 1 || len(body.Accepts) != 1 || body.Accepts[0]["maxAmountRequired"] != "10000" ||
					body.Price != "0.01 USDC on Base Sepolia (test money)" || body.Description != "One article" || body.Help != "https://shop.example/help?a=1&b=2" || body.Message == "" {
					t.Errorf("%v\n%s", err, res.Text)
				}
			default:
				for _, want := range []string{"0.01 USDC on Base Sepolia (test money)", "One article", "https://shop.example/help?a=1&b=2", "PAYMENT-REQUIRED"} {
					if !strings.Contains(res.Text, want) {
						t.Errorf("%q is not in\n%s", want, res.Text)
					}
				}
			}
		})
	}
}

// What version 1 cannot say is still an object that can be read, in which its clients find
// nothing to pay.
func TestWhatVersion1CannotSayIsReadable(t *testing.T) {
	w := gate.Prepare(t)
	w.Facilitator.Kinds.Store(`{"kinds":[{"x402Version":2,"scheme":"upto","network":"eip155:84532","extra":{"facilitatorAddress":"` + gate.PayTo + `"}},{"x402Version":2,"scheme":"exact","network":"eip155:84532"}],"extensions":[],"signers":{}}`)
	w.Load(w.Caddyfile("price /upto upto $0.50 \"A chat\""))
	res := w.Get("/upto")
	var body map[string]any
	if err := json.Unmarshal([]byte(res.Text), &body); res.StatusCode != 402 || err != nil || body["price"] != "up to 0.5 USDC on Base Sepolia (test money)" || body["description"] != "A chat" ||
		body["error"] != "Payment required" || body["accepts"] != nil || body["x402Version"] != nil {
		t.Errorf("%v %v", err, res)
	}
}

// Other answers of the gate speak the same languages, and all of them say something.
func TestRefusalsSpeakTheLanguageThatIsAskedFor(t *testing.T) {
	w := gate.New(t, "contact mailto:help@shop.example\nprice POST /first $0.01\nprice /a $0.01\nprice /b $0.02\notherwise refuse")
	payment := w.Sign("GET", "/a", gate.NewPayer(t)).V2(t)
	for _, tc := range []struct {
		method, target string
		header         []string
		status         int
		code, says     string
	}{
		{"GET", "/else", nil, 403, "not_for_sale", "This is not for sale."},
		{"GET", "/first", nil, 405, "method_not_allowed", "with other methods only: POST."},
		{"GET", "/a", []string{"X-Original-URL", "/b"}, 400, "ambiguous_path", "in several ways"},
		{"GET", "/a", []string{"Early-Data", "1", "PAYMENT-SIGNATURE", payment}, 425, "too_early", "Send the same payment again"},
	} {
		for _, as := range []struct {
			accept, agent, media, help string
		}{
			{"*/*", "", "application/json", `"help":"mailto:help@shop.example"`},
			{"text/markdown", "", "text/markdown; charset=utf-8", "Help: <mailto:help@shop.example>"},
			{"text/plain", "", "text/plain; charset=utf-8", "Help: mailto:help@shop.example"},
			{"text/html", mozilla, "text/html; charset=utf-8", `<a href="mailto:help@shop.example">`},
		} {
			media := as.media
			if as.agent != "" && tc.status == 425 {
				media, as.help = "application/json", `"help":` // a page has paid
			}
			res := w.Do(w.Request(tc.method, tc.target, append([]string{"Accept", as.accept, "User-Agent", as.agent}, tc.header...)...))
			if res.StatusCode != tc.status || res.Header.Get("Content-Type") != media || !strings.Contains(res.Text, tc.code) || !strings.Contains(res.Text, tc.says) || !strings.Contains(res.Text, as.help) {
				t.Errorf("%s %s as %s: %v", tc.method, tc.target, as.accept, res)
			}
		}
	}
}
