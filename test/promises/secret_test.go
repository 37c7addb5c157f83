package promises

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// canaries are secrets by their names.
type canaries map[string][]byte

// spelledOut is every way in which a secret could show: as it is, in hex, in
// base64 wherever it begins, as a number, quoted.
func spelledOut(secret []byte) map[string]string {
	all := map[string]string{"as it is": string(secret), "in hex": hex.EncodeToString(secret), "quoted": fmt.Sprintf("%q", secret)}
	for i := range 3 {
		for name, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			// Of what surrounds it only the characters at the edges depend.
			encoded := encoding.EncodeToString(append(make([]byte, i), secret...))
			all[fmt.Sprintf("in %s, %d bytes in", name, i)] = encoded[i*4/3+1 : len(encoded)-3]
		}
	}
	if len(secret) == 32 {
		all["in decimal"] = new(big.Int).SetBytes(secret).String()
	}
	return all
}

// window is how much of a secret is looked up at once.
const window = 12

// search looks for the secrets in a text: in one pass, since there are many.
func (c canaries) search(t *testing.T, where string, text []byte) {
	t.Helper()
	type canary struct{ name, how, spelled string }
	begin := map[string][]canary{}
	for name, secret := range c {
		for how, spelled := range spelledOut(secret) {
			if n := len(spelled); n > 52 {
				spelled = spelled[n-52 : n-4] // a part is enough
			}
			begin[spelled[:window]] = append(begin[spelled[:window]], canary{name, how, spelled})
		}
	}
	for _, text := range [][]byte{text, bytes.ToLower(text)} { // hex has two letter cases
		for at := range len(text) - window + 1 {
			for _, c := range begin[string(text[at:at+window])] {
				if bytes.HasPrefix(text[at:], []byte(c.spelled)) {
					t.Errorf("%s shows in %s, %s: …%s…", c.name, where, c.how, text[max(0, at-300):min(len(text), at+100)])
				}
			}
		}
	}
}

// seenRequests are all requests that an upstream saw, as text.
type seenRequests struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *seenRequests) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	fmt.Fprintf(&s.text, "%s %s\n", r.Method, r.RequestURI)
	_ = r.Header.Write(&s.text)
	s.mu.Unlock()
	switch {
	case strings.HasSuffix(r.URL.Path, "/missing"):
		http.NotFound(w, r)
	case strings.HasSuffix(r.URL.Path, "/panic"):
		panic(http.ErrAbortHandler)
	default:
		_, _ = w.Write([]byte(gate.Goods))
	}
}

// TestNothingSecretShows plants secrets wherever the config takes some, and
// payments, and looks for them in everything that a gateway shows.
func TestNothingSecretShows(t *testing.T) {
	key, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	_, cdp, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	secrets := canaries{
		"the bearer token":        []byte("canary-bearer-7Qx0"),
		"the header's value":      []byte("canary-header-8Rw1"),
		"the key of the node":     []byte("canaryNodeKey9Sv2canaryNodeKey9Sv2"),
		"the key of our own node": []byte("canaryOwnKey1Tu3canaryOwnKey1Tu3"),
		"the signer's key":        crypto.FromECDSA(key),
		"the CDP secret":          cdp.Seed(),
		"the password":            []byte("canary-password-2Ut4"),
	}
	w := gate.Prepare(t)
	dir := t.TempDir()
	write := func(name, content string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	node := httptest.NewServer(gate.Says(500, "no"))
	t.Cleanup(node.Close)
	up := &seenRequests{}
	upstream := httptest.NewServer(up)
	t.Cleanup(upstream.Close)
	t.Setenv("PAYWALL_TEST_BEARER", string(secrets["the bearer token"]))
	t.Setenv("PAYWALL_TEST_RPC", node.URL+"/"+string(secrets["the key of the node"]))
	t.Setenv("PAYWALL_TEST_OWN", node.URL+"/"+string(secrets["the key of our own node"]))
	t.Setenv("PAYWALL_TEST_DSN", "postgres://me:"+string(secrets["the password"])+"@"+loopback.FreeAddress(t)+"/db?sslmode=disable")
	header := write("header", string(secrets["the header's value"])+"\n")
	signer := write("signer", hex.EncodeToString(secrets["the signer's key"]))
	cdpFile := write("cdp", base64.StdEncoding.EncodeToString(cdp))

	autosave := filepath.Join(dir, "autosave.json")
	restore := caddy.ConfigAutosavePath
	caddy.ConfigAutosavePath = autosave
	t.Cleanup(func() { caddy.ConfigAutosavePath = restore })
	admin := loopback.FreeAddress(t)
	access := filepath.Join(dir, "access")
	const filter = "format filter {\nrequest>headers>Payment-Signature replace REDACTED\nrequest>headers>X-Payment replace REDACTED\n}"
	caddyfile := func(ledger string) string {
		return fmt.Sprintf(`{
	admin %s
	auto_https off
	grace_period 1s
	log {
		output file %s
		level DEBUG
		%s
	}
	metrics
	servers {
		trace
	}
	paywall {
		ledger %s
		facilitator bearer %s {
			auth bearer {env.PAYWALL_TEST_BEARER}
			rpc base-sepolia {env.PAYWALL_TEST_RPC}
		}
		facilitator header %s {
			auth header X-Api-Key {file.%s}
		}
		facilitator cdp %s {
			auth cdp an-id {file.%s}
		}
		facilitator own evm {
			network base-sepolia {
				rpc {env.PAYWALL_TEST_OWN}
				signer {file.%s}
			}
		}
	}
}
%s {
	log {
		output file %s
		%s
	}
	paywall {
		accept base-sepolia usdc %s
		facilitator bearer
		upstream_headers
		price /bearer/* $0.01
		price /header/* $0.01 {
			facilitator header
		}
		price /cdp/* $0.01 {
			facilitator cdp
		}
		price /own/* $0.01 {
			facilitator own
		}
	}
	handle /bearer/down {
		reverse_proxy %s
	}
	handle /bearer/nofile {
		file_server {
			root %s
		}
	}
	handle {
		reverse_proxy %s
	}
	handle_errors {
		respond "{err.message} {err.status_code} {http.request.header.X-None}"
	}
}
`, admin, w.LogFile, filter, ledger, w.Facilitator.URL, w.Facilitator.URL, header, w.Facilitator.URL, cdpFile, signer, w.URL, access, filter, gate.PayTo,
			loopback.FreeAddress(t), dir, strings.TrimPrefix(upstream.URL, "http://"))
	}

	var shown bytes.Buffer // all answers
	show := func(res gate.Answer) {
		if res.Err != nil {
			fmt.Fprintln(&shown, res.Err)
			return
		}
		fmt.Fprintln(&shown, res.Status)
		_ = res.Header.Write(&shown)
		fmt.Fprintln(&shown, res.Text)
	}
	var offer x402.Requirement // the same at all paths; some facilitators are soon left alone
	buy := func(method, path string) {
		p := gate.NewPayer(t)
		for i, version := range []string{"PAYMENT-SIGNATURE", "X-PAYMENT"} {
			s := p.Sign(t, offer, time.Now())
			value := s.V2(t)
			if i == 1 {
				value = s.V1(t)
			}
			secrets[fmt.Sprintf("payment %d", len(secrets))] = []byte(value)
			signature, err := hex.DecodeString(strings.TrimPrefix(s.Signature, "0x"))
			if err != nil {
				t.Fatal(err)
			}
			secrets[fmt.Sprintf("signature %d", len(secrets))] = signature
			for range 2 {
				show(w.Do(w.Request(method, path, version, value)))
			}
		}
	}
	get := func(address string) []byte {
		res, err := http.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %v", address, res.StatusCode, err)
		}
		return body
	}

	for _, ledger := range []string{"memory i_accept_loss", "postgres {env.PAYWALL_TEST_DSN}"} {
		text := caddyfile(ledger)
		adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Load(text)
		if strings.HasPrefix(ledger, "memory") {
			w.Until(func() bool { return w.Get("/bearer/x").Is(402) })
			offer = w.Challenge(http.MethodGet, "/bearer/x").Accepts[0]
		} else { // it cannot be reached, which closes the prices
			w.Until(func() bool { return w.Get("/bearer/x").Is(503) })
		}
		for _, path := range []string{"/bearer/x", "/bearer/missing", "/bearer/panic", "/bearer/down", "/bearer/nofile", "/header/x", "/cdp/x", "/own/x"} {
			buy(http.MethodGet, path)
		}
		buy(http.MethodPost, "/bearer/x")
		buy(http.MethodPost, "/bearer/down")
		// A facilitator that tells all it knows, and one that knows nothing.
		for _, bad := range []http.HandlerFunc{
			func(rw http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				fmt.Fprintf(rw, `{"isValid":false,"success":false,"invalidReason":%q,"errorReason":%q}`, r.Header.Get("Authorization"), r.Header.Get("Authorization")+string(body))
			},
			gate.Says(500, "no"),
		} {
			w.Facilitator.OnVerify(bad)
			w.Facilitator.OnSettle(bad)
			buy(http.MethodGet, "/bearer/y")
			buy(http.MethodPost, "/cdp/y")
			buy(http.MethodPost, "/header/y")
		}
		w.Facilitator.OnVerify(nil)
		w.Facilitator.OnSettle(nil)
		show(w.Get("/bearer/x", "PAYMENT-SIGNATURE", "canary"))

		secrets.search(t, "caddy adapt", adapted)
		secrets.search(t, "the admin API", get("http://"+admin+"/config/"))
		for _, path := range []string{"/metrics", "/debug/vars", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/debug/pprof/allocs?debug=1", "/debug/pprof/cmdline", "/debug/pprof/threadcreate?debug=1", "/reverse_proxy/upstreams"} {
			secrets.search(t, path, get("http://"+admin+path))
		}
	}
	for _, file := range []string{autosave, w.LogFile, access} {
		content, err := os.ReadFile(file)
		if err != nil || len(content) == 0 {
			t.Fatalf("%s: %d bytes, %v", file, len(content), err)
		}
		secrets.search(t, filepath.Base(file), content)
	}
	if log, _ := os.ReadFile(access); !bytes.Contains(log, []byte("REDACTED")) {
		t.Error("the access log has no payments that could show")
	}
	secrets.search(t, "an answer", shown.Bytes())
	up.mu.Lock()
	defer up.mu.Unlock()
	secrets.search(t, "a request to the upstream", up.text.Bytes())
	if !strings.Contains(up.text.String(), "Paywall-Payment") {
		t.Error("the upstream saw no paid request")
	}
	if n := len(slices.Collect(maps.Keys(secrets))); n < 50 {
		t.Errorf("%d secrets only", n)
	}
}

// TestSearchFindsSecrets: the search of the test above finds what shows.
func TestSearchFindsSecrets(t *testing.T) {
	secret := bytes.Repeat([]byte("canary-0"), 4)
	for how, text := range map[string]string{
		"as it is": "x" + string(secret) + "y", "in hex": strings.ToUpper(hex.EncodeToString(secret)),
		"base64": base64.StdEncoding.EncodeToString([]byte("user:" + string(secret) + "!")), "base64url": base64.URLEncoding.EncodeToString([]byte("u:" + string(secret))),
		"in decimal": new(big.Int).SetBytes(secret).String(),
	} {
		found := false
		for _, spelled := range spelledOut(secret) {
			found = found || strings.Contains(strings.ToLower(text), strings.ToLower(spelled))
		}
		if !found {
			t.Errorf("%s is not found", how)
		}
	}
}

// Payments and secrets do not reach the log, even at debug level.
func TestPaymentsAreNotLogged(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t))
	w.Expect(w.Get("/paid/x", "PAYMENT-SIGNATURE", s.V2(t)), 200, "")
	var log []byte
	w.Until(func() bool { // the line comes after the answer
		log, _ = os.ReadFile(w.LogFile)
		return strings.Contains(string(log), `"outcome":"delivered"`)
	})
	if strings.Contains(string(log), s.Signature) || strings.Contains(string(log), s.V2(t)) {
		t.Errorf("the payment is in the log:\n%s", log)
	}
}
