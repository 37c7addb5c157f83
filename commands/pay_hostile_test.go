package commands

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// TestHostileTexts: a seller who writes control characters everywhere is shown
// without them, and --dry-run shows what would be signed to the letter.
func TestHostileTexts(t *testing.T) {
	price, other := requirement(), requirement()
	price.Extra, _ = json.Marshal(map[string]string{"name": "USDC", "version": "2", "note": nasty})
	other.Network, other.Asset, other.Amount, other.Scheme = nasty, nasty, nasty, nasty
	asked, err := json.Marshal(map[string]any{
		"x402Version": 2, "error": nasty, "accepts": []x402.Requirement{price, other},
		"resource": map[string]string{"url": nasty, "description": nasty, "mimeType": nasty},
	})
	if err != nil {
		t.Fatal(err)
	}
	challenge := func(w http.ResponseWriter) {
		w.Header().Set(x402.HeaderPaymentRequired, base64.StdEncoding.EncodeToString(asked))
		w.WriteHeader(http.StatusPaymentRequired)
		_, _ = io.WriteString(w, nasty)
	}
	said := x402.Receipt{
		Network: nasty, Payer: nasty, ErrorReason: nasty, ErrorMessage: nasty, Transaction: nasty, Amount: nasty,
	}
	s := newSeller(t)
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get(x402.HeaderPaymentSignature) == "":
			challenge(w)
		case r.URL.Path == "/raw":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 \x1b[31mFine\r\nX-A: \u009b31m\u202e\r\nContent-Length: %d\r\n\r\n%s", len(nasty), nasty)
		case r.URL.Path == "/away":
			said.Success = true
			w.Header().Set(x402.HeaderPaymentResponse, said.Encode())
			w.Header().Set("Location", "http://a.example/\u202e\u009b")
			w.WriteHeader(http.StatusTemporaryRedirect)
		default:
			w.Header().Set(x402.HeaderPaymentResponse, said.Encode())
			challenge(w)
		}
	})
	for name, args := range map[string][]string{
		"refused":      {"-v", s.URL},
		"raw":          {"-v", "-i", s.URL + "/raw"},
		"redirected":   {"-d", "x", s.URL + "/away"},
		"dry run":      {"--dry-run", "-v", s.URL},
		"not its kind": {"--network", "base", s.URL},
		"pending":      {"-v", "--wait", "0", s.URL + "/pending"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &pay{terminal: func(io.Reader) bool { return false }, screen: func(io.Writer) bool { return true }}
			got := runPay(t, p, nil, append([]string{"--dev-key", "0"}, args...)...)
			mustShow(t, "stdout", got.out)
			mustShow(t, "stderr", got.err)
			if strings.Contains(got.out+got.err, "usage") || got.err == "" {
				t.Errorf("%+v", got)
			}
			if name == "dry run" {
				var shown struct {
					Payment struct{ Accepted x402.Requirement }
				}
				var extra struct{ Note string }
				if err := json.Unmarshal([]byte(got.out), &shown); err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(shown.Payment.Accepted.Extra, &extra); err != nil || extra.Note != nasty {
					t.Errorf("%q, %v", extra.Note, err)
				}
			}
		})
	}
	// A pipe gets the goods to the letter.
	if got := run(t, nil, "--dev-key", "0", s.URL+"/raw"); got.out != nasty {
		t.Errorf("%q", got.out)
	}
	// The head of an answer is for people, wherever it goes.
	if got := run(t, nil, "--dev-key", "0", "-i", s.URL+"/raw"); true {
		head, _, _ := strings.Cut(got.out, "\r\n\r\n")
		mustShow(t, "head", strings.ReplaceAll(head, "\r\n", "\n"))
	}
}

// TestPriceElsewhere: a price that a redirect has led to is paid only when somebody
// agrees, --yes is not that, and what was given for the first origin stays there.
func TestPriceElsewhere(t *testing.T) {
	t.Setenv("PAYWALL_KEY", testPrivate)
	for name, tt := range map[string]struct {
		in   *string
		args []string
		code int
		sent int
		err  []string
	}{
		"nobody agrees":  {code: exitTooDear, err: []string{"redirected to another origin: http://127.0.0.1:", "which does not get X-Api-Key", "a redirect has led to http://127.0.0.1:", "if you mean it, ask for http://127.0.0.1:"}},
		"yes":            {args: []string{"--yes"}, code: exitTooDear},
		"quiet":          {args: []string{"-q"}, code: exitTooDear, err: []string{"a redirect has led to"}},
		"dry run":        {args: []string{"--dry-run"}, code: exitTooDear, err: []string{"a redirect has led to"}},
		"asked: yes":     {in: says("y\n"), code: exitOK, sent: 1, err: []string{"a redirect has led to", "pay it?"}},
		"asked: no":      {in: says("n\n"), code: exitTooDear, err: []string{"a redirect has led to", "pay it?"}},
		"a body":         {args: []string{"-d", "secret"}, code: exitNetwork, err: []string{"refused to send to another origin"}},
		"its user hides": {args: []string{"-v"}, code: exitTooDear},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSeller(t)
			from := httptest.NewServer(http.RedirectHandler(strings.Replace(s.URL, "://", "://sk_theirs@", 1)+"/there", http.StatusTemporaryRedirect))
			defer from.Close()
			mine := strings.Replace(from.URL, "://", "://sk_token@", 1)
			got := run(t, tt.in, append(tt.args, "-H", "X-Api-Key: secret", mine)...)
			if got.code != tt.code || len(s.paid()) != tt.sent || strings.Contains(got.err, "sk_t") {
				t.Errorf("%+v, paid %d", got, len(s.paid()))
			}
			for _, part := range tt.err {
				if !strings.Contains(got.err, part) {
					t.Errorf("no %q in\n%s", part, got.err)
				}
			}
			if r, body := s.seen(); r != nil && (r.Header.Get("X-Api-Key") != "" || r.Header.Get("Authorization") != "" || body != "") {
				t.Errorf("the other origin got %v, %q", r.Header, body)
			}
		})
	}
}

// TestTokenInTheURL: a token that stands as the user before the host is sent, and
// not shown.
func TestTokenInTheURL(t *testing.T) {
	s := newSeller(t)
	got := run(t, nil, "-v", "--dev-key", "0", strings.Replace(s.URL, "://", "://sk_token@", 1))
	if user, _, _ := s.last.BasicAuth(); got.code != exitOK || user != "sk_token" || strings.Contains(got.err, "sk_token") {
		t.Errorf("%q, %+v", user, got)
	}
}

// TestSellersThatHoldPay: no seller keeps the command for ever.
func TestSellersThatHoldPay(t *testing.T) {
	t.Setenv("PAYWALL_KEY", testPrivate)
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	drips := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(5 * time.Millisecond)
		}
	}
	stops := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "x")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		free   bool
		code   int
		err    string
	}{
		"before a price": {silent, true, exitNetwork, "asking for the price: the seller is silent"},
		"free, stops":    {stops, true, exitNetwork, "the answer broke off: the seller is silent"},
		"paid, silent":   {silent, false, exitPending, "the outcome is not known"},
		"paid, stops":    {stops, false, exitNoGoods, "the seller is silent"},
		"paid, drips":    {drips, false, exitNoGoods, "too slowly"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSeller(t, tt.answer)
			if tt.free {
				s.Config.Handler = tt.answer
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			file := filepath.Join(t.TempDir(), "goods")
			done := make(chan ran, 1)
			go func() {
				done <- run(t, nil, "--wait", "0", "--timeout", "500ms", "--max-time", "1s", "-o", file, s.URL)
			}()
			select {
			case got := <-done:
				if got.code != tt.code || !strings.Contains(got.err, tt.err) {
					t.Errorf("%+v", got)
				}
			case <-ctx.Done():
				s.CloseClientConnections()
				<-done
				t.Error("held")
			}
		})
	}
	s := newSeller(t)
	for _, flag := range []string{"--timeout", "--max-time"} {
		if got := run(t, nil, flag, "-1s", s.URL); got.code != exitUsage {
			t.Errorf("%+v", got)
		}
		if got := run(t, nil, flag, "0", s.URL); got.code != exitOK {
			t.Errorf("%+v", got)
		}
	}
}

// TestKeyInTheWrongPlace: a key given in place of something else is not repeated.
func TestKeyInTheWrongPlace(t *testing.T) {
	s := newSeller(t)
	for _, args := range [][]string{
		{"--key-env", testPrivate},
		{"--key-file", testPrivate},
		{"--key-file", "0x" + testPrivate},
		{"--dev-key", testPrivate},
		{"--key", testPrivate},
		{"--dev-key=0x" + testPrivate},
		{"--max", testPrivate},
		{"--network", testPrivate},
		{"--wait", testPrivate},
	} {
		if got := run(t, nil, append(args, s.URL)...); got.code != exitUsage || got.err == "" {
			t.Errorf("%q: %+v", args, got)
		}
	}
}
