package commands

import (
	"bytes"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// ran is what a run of the command did.
type ran struct {
	code     int
	out, err string
}

// run runs the command in this process. A terminal is one if in is not nil.
func run(t *testing.T, in *string, args ...string) ran {
	t.Helper()
	return runPay(t, &pay{terminal: func(io.Reader) bool { return in != nil }}, in, args...)
}

func runPay(t *testing.T, p *pay, in *string, args ...string) ran {
	t.Helper()
	cmd := p.command()
	var out, stderr bytes.Buffer
	var stdin io.Reader = strings.NewReader("")
	if in != nil {
		stdin = strings.NewReader(*in)
	}
	cmd.SetIn(stdin)
	cmd.SetOut(&out)
	cmd.SetErr(&stderr)
	cmd.SetArgs(args)
	code := codeOf(t, cmd.ExecuteContext(t.Context()))
	for _, secret := range []string{testPrivate, "ac0974", strings.ToUpper(testPrivate)} {
		if strings.Contains(out.String()+stderr.String(), secret) {
			t.Error("the key shows")
		}
	}
	if strings.ContainsRune(stderr.String(), '\x1b') {
		t.Errorf("a seller writes to the terminal: %q", stderr.String())
	}
	return ran{code, out.String(), stderr.String()}
}

// codeOf is the exit code that Caddy makes of an error.
func codeOf(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	if v := reflect.Indirect(reflect.ValueOf(err)); v.Kind() == reflect.Struct {
		if code := v.FieldByName("ExitCode"); code.IsValid() {
			return int(code.Int())
		}
	}
	return 1
}

func says(s string) *string { return &s }

// TestExitCodes: one row and more for every code of the help text.
func TestExitCodes(t *testing.T) {
	t.Setenv("PAYWALL_KEY", testPrivate)
	pending := answers(503, "Retry-After", "1", x402.HeaderPaymentResponse, receipt(false, "settlement_pending"))
	paid := []string{x402.HeaderPaymentResponse, receipt(true, "")}
	refused := func(w http.ResponseWriter, _ *http.Request) {
		(&seller{price: requirement()}).challenge(w, "settlement_failed")
	}
	down := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write([]byte(`{"error":"upstream_failed"}`))
	}
	tells := func(status int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	dear := func(s *seller) { s.price.Amount = "500000" }
	tests := map[string]struct {
		answers []http.HandlerFunc
		change  func(*seller)
		in      *string
		args    []string
		path    string
		code    int
		out     string   // the whole of stdout
		err     []string // parts of stderr, in their order
		sent    int
	}{
		"delivered":               {code: 0, out: "the goods", sent: 1, err: []string{"402 Payment required: http://127.0.0.1", "(One [31marticle)", "price: 0.01 USDC on base-sepolia to " + payTo + " (TEST MONEY)", "payer: " + payer, "receipt: paid, transaction 0xabab", "on base-sepolia (TEST MONEY)"}},
		"quiet":                   {args: []string{"-q"}, code: 0, out: "the goods", sent: 1},
		"verbose":                 {args: []string{"-v"}, code: 0, out: "the goods", sent: 1, err: []string{"offer 1: 0.01 USDC", "(chosen)", "receipt: payer " + payer}},
		"version 1":               {args: []string{"--v1"}, code: 0, out: "the goods", sent: 1, err: []string{"receipt: paid"}},
		"free":                    {path: "/free", code: 0, out: "free goods"},
		"pending, then delivered": {answers: []http.HandlerFunc{pending, delivers}, code: 0, out: "the goods", sent: 2, err: []string{"503 settlement_pending: sending the same payment again in 1s", "receipt: paid"}},
		"usage: flag":             {args: []string{"--nope"}, code: 2, err: []string{"pay: unknown flag"}},
		"usage: no such network":  {args: []string{"--network", "bsae"}, code: 2, err: []string{"there is no network"}},
		"usage: versions":         {args: []string{"--v1", "--v2"}, code: 2, err: []string{"exclude each other"}},
		"usage: limit":            {args: []string{"--max", "1e3"}, code: 2, err: []string{"--max: limit"}},
		"usage: header":           {args: []string{"-H", "X-Payment: x"}, code: 2, err: []string{"what this command is for"}},
		"usage: two keys":         {args: []string{"--dev-key", "0", "--key-file", "x"}, code: 2, err: []string{"only one of"}},
		"usage: empty variable":   {args: []string{"--key-env", "PAYWALL_TEST_UNSET"}, code: 2, err: []string{"is not set"}},
		"unpriced error":          {path: "/missing", code: 3, out: "404 page not found\n"},
		"too dear, no terminal":   {change: dear, code: 4, err: []string{"price: 0.5 USDC", "0.5 USDC is above the limit of $0.10; raise it with --max, or agree with --yes"}},
		"too dear, yes":           {change: dear, args: []string{"--yes"}, code: 0, out: "the goods", sent: 1},
		"too dear, higher limit":  {change: dear, args: []string{"--max", "0.5"}, code: 0, out: "the goods", sent: 1},
		"too dear, asked: yes":    {change: dear, in: says("y\n"), code: 0, out: "the goods", sent: 1, err: []string{"pay it? [y/N]"}},
		"too dear, asked: no":     {change: dear, in: says("n\n"), code: 4, err: []string{"pay it? [y/N]", "not paid, as you wish"}},
		"too dear, asked: return": {change: dear, in: says("\n"), code: 4},
		"too dear, asked: ^D":     {change: dear, in: says(""), code: 4},
		"too dear, quiet":         {change: dear, in: says("y\n"), args: []string{"-q"}, code: 0, out: "the goods", sent: 1, err: []string{"price: 0.5 USDC on base-sepolia to " + payTo, "above the limit", "pay it?"}},
		"too dear, stdin is used": {change: dear, in: says("y\n"), args: []string{"-d", "@-"}, code: 4},
		"unknown asset":           {change: func(s *seller) { s.price.Asset = payer }, args: []string{"--yes"}, code: 4, err: []string{"nothing is known about the asset", "agree with --max '10000 eip155:84532/" + payer + "'"}},
		"unknown asset, agreed":   {change: func(s *seller) { s.price.Asset = payer }, args: []string{"--max", "10000 base-sepolia/" + payer}, code: 0, out: "the goods", sent: 1},
		"site is down":            {answers: []http.HandlerFunc{down}, code: 7, sent: 1, out: "*", err: []string{"the site failed: 502 Bad Gateway (upstream_failed); nothing was charged"}},
		"refused":                 {answers: []http.HandlerFunc{refused}, code: 5, sent: 1, out: "*", err: []string{"the seller refused the payment (settlement_failed); nothing was paid"}},
		"pending for too long":    {answers: []http.HandlerFunc{pending}, args: []string{"--wait", "0"}, code: 6, sent: 1, err: []string{"receipt: not decided yet (settlement_pending)", "outcome is not known (settlement_pending)", "may pay twice"}},
		"connection lost":         {answers: []http.HandlerFunc{func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }}, args: []string{"--wait", "0", "-d", "x"}, code: 6, sent: 1, err: []string{"sending the payment", "outcome is not known"}},
		"paid, no goods":          {answers: []http.HandlerFunc{answers(500, paid...)}, code: 7, sent: 1, err: []string{"receipt: paid", "paid, but the answer is 500 Internal Server Error"}},
		"no word, no goods":       {answers: []http.HandlerFunc{answers(404)}, code: 7, sent: 1, err: []string{"the answer to the payment is 404 Not Found, without a word on whether it was taken"}},
		"broken off":              {answers: []http.HandlerFunc{truncates}, code: 7, sent: 1, out: "half of", err: []string{"the answer broke off", "call again within 24 h", "does not charge twice"}},
		"paid, told what to do":   {answers: []http.HandlerFunc{tells(409, `{"error":"delivery_unconfirmed","message":"It is not charged again. Ask the \u001bseller."}`, paid...)}, code: 7, sent: 1, out: "*", err: []string{"paid, but the answer is 409 Conflict (delivery_unconfirmed); the seller says: \"It is not charged again. Ask the seller.\""}},
		"paid, told nothing":      {answers: []http.HandlerFunc{answers(500, paid...)}, code: 7, sent: 1, err: []string{"paid, but the answer is 500", "call again within 24 h, with the same key and the transaction 0xabab", "does not charge twice"}},
		"not charged, told so":    {answers: []http.HandlerFunc{tells(409, `{"error":"payment_identifier_conflict","message":"This payment has not been charged."}`)}, code: 7, sent: 1, out: "*", err: []string{"(payment_identifier_conflict); the seller says: \"This payment has not been charged.\""}},
		"a message of no kind":    {answers: []http.HandlerFunc{tells(409, `{"error":"payment_in_flight","message":{"a":1}}`)}, args: []string{"--wait", "0"}, code: 6, sent: 1, out: "*", err: []string{"outcome is not known (payment_in_flight)"}},
		"a long message":          {answers: []http.HandlerFunc{tells(409, `{"error":"a","message":"`+strings.Repeat("x", 4000)+`"}`)}, code: 7, sent: 1, out: "*", err: []string{strings.Repeat("x", 500) + "…"}},
		"a 402 of its own":        {path: "/own402", code: 9, err: []string{"challenge cannot be paid"}},
		"not on that network":     {args: []string{"--network", "base"}, code: 9, err: []string{"offer 1: it is not among the networks"}},
		"not with that asset":     {args: []string{"--asset", "eurc"}, code: 9, err: []string{"offer 1: it is not among"}},
		"lying payee":             {change: func(s *seller) { s.price.PayTo = "0x0000000000000000000000000000000000000000" }, code: 9, err: []string{"takes no money"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSeller(t, tt.answers...)
			if tt.change != nil {
				tt.change(s)
			}
			got := run(t, tt.in, append(tt.args, s.URL+tt.path)...)
			sent := s.paid()
			if got.code != tt.code || tt.out != "*" && got.out != tt.out || len(sent) != tt.sent {
				t.Errorf("exit %d, %d payments, stdout %q\n%s", got.code, len(sent), got.out, got.err)
			}
			for _, p := range sent {
				if p != sent[0] {
					t.Error("two payments were signed")
				}
			}
			rest := got.err
			for _, part := range tt.err {
				_, after, found := strings.Cut(rest, part)
				if !found {
					t.Errorf("stderr does not say %q:\n%s", part, got.err)
				}
				rest = after
			}
			if name == "quiet" && got.err != "" {
				t.Errorf("says %q", got.err)
			}
		})
	}
}

func TestNetworkError(t *testing.T) {
	s := newSeller(t)
	s.Close()
	if got := run(t, nil, "--dev-key", "0", s.URL); got.code != exitNetwork || !strings.Contains(got.err, "asking for the price") {
		t.Errorf("%+v", got)
	}
	for _, args := range [][]string{{}, {"a", "b"}, {"localhost:80/x"}, {"/x"}, {"ftp://x"}, {"http://"}, {"http://a b"}} {
		if got := run(t, nil, args...); got.code != exitUsage {
			t.Errorf("%q: %+v", args, got)
		}
	}
}
