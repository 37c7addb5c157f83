package paywall_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/crypto/bcrypt"

	paywall "github.com/caddy-paywall/caddy-paywall"
	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	"github.com/caddy-paywall/caddy-paywall/routes"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

func init() {
	caddy.RegisterModule(fakeCache{})
	caddy.RegisterModule(fakeAnswerer{})
	httpcaddyfile.RegisterHandlerDirective("cache", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return fakeCache{}, nil
	})
	httpcaddyfile.RegisterHandlerDirective("paywall_test_answerer", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return fakeAnswerer{}, nil
	})
}

// fakeCache has the name of the cache plugin, and keeps what is 200.
type fakeCache struct{}

var cached sync.Map // URL to body

func (fakeCache) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.cache", New: func() caddy.Module { return new(fakeCache) }}
}

func (fakeCache) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if body, ok := cached.Load(r.Host + r.URL.String()); ok {
		_, err := w.Write(body.([]byte))
		return err
	}
	var body bytes.Buffer
	rec := caddyhttp.NewResponseRecorder(w, &body, func(status int, _ http.Header) bool { return status == 200 })
	if err := next.ServeHTTP(rec, r); err != nil || !rec.Buffered() {
		return err
	}
	cached.Store(r.Host+r.URL.String(), bytes.Clone(body.Bytes()))
	return rec.WriteResponse()
}

// fakeAnswerer is a handler of another plugin.
type fakeAnswerer struct{}

func (fakeAnswerer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.paywall_test_answerer", New: func() caddy.Module { return new(fakeAnswerer) }}
}

func (fakeAnswerer) ServeHTTP(w http.ResponseWriter, _ *http.Request, _ caddyhttp.Handler) error {
	_, err := w.Write([]byte(gate.Goods))
	return err
}

// routeFixture is a Caddyfile of testdata/routes. Its first lines say what is
// found in it (`# error answered_before`), and what an unpaid request gets when
// it runs all the same (`# open GET /paid/x`, `# shut …`).
type routeFixture struct {
	finds    []string
	requests [][]string
	text     string
	ports    [2]string
}

// routeWorld is what the fixtures need around them.
type routeWorld struct {
	root, upstream, facilitator, hash string
}

func newRouteWorld(t *testing.T) routeWorld {
	t.Helper()
	up := httptest.NewServer(gate.Says(200, gate.Goods))
	t.Cleanup(up.Close)
	root := t.TempDir()
	for _, name := range []string{"paid/x", "index.html", "report.pdf", "report.pdf.gz", "report.pdf.br", "shop/index.html", "shop/start.html", "page.html", "paid/photo.png", "photos/a.png", "wp-content/uploads/report.pdf"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(gate.Goods), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return routeWorld{root: root, upstream: strings.TrimPrefix(up.URL, "http://"), facilitator: gate.NewFacilitator(t).URL, hash: string(hash)}
}

func (w routeWorld) read(t *testing.T, file string) routeFixture {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var f routeFixture
	var body []string
	global := ""
	for line := range strings.Lines(string(content)) {
		switch words := strings.Fields(line); {
		case len(words) > 2 && words[0] == "#" && (words[1] == "open" || words[1] == "shut"):
			f.requests = append(f.requests, words[1:])
		case len(words) == 3 && words[0] == "#":
			f.finds = append(f.finds, words[1]+" "+words[2])
		case len(words) > 0 && words[0] == "GLOBAL":
			global += strings.Join(words[1:], " ") + "\n"
		default:
			body = append(body, line)
		}
	}
	for i := range f.ports {
		_, f.ports[i], _ = strings.Cut(loopback.FreeAddress(t), ":")
	}
	f.text = fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	grace_period 1s
	log {
		output discard
	}
	%s
	paywall {
		ledger memory i_accept_loss
		facilitator fake %s
	}
}
(pay) {
	accept base-sepolia usdc %s
	facilitator fake
}
%s`, global, w.facilitator, gate.PayTo, strings.Join(body, ""))
	f.text = strings.NewReplacer("PORT", f.ports[0], "OTHER", f.ports[1], "UPSTREAM", w.upstream, "ROOT", w.root,
		"HASH", w.hash, "LOG", filepath.Join(t.TempDir(), "access")).Replace(f.text)
	return f
}

// kinds are severity and rule of findings, each once.
func kinds(findings []routes.Finding) []string {
	var k []string
	for _, f := range findings {
		k = append(k, string(f.Severity)+" "+f.Rule)
	}
	slices.Sort(k)
	return slices.Compact(k)
}

// TestRoutes: each fixture has the findings that it names, in the adapted JSON
// and when it loads, and is as open as it says when it runs all the same.
func TestRoutes(t *testing.T) {
	files, err := filepath.Glob("testdata/routes/*.Caddyfile")
	if err != nil || len(files) < 30 {
		t.Fatal("no fixtures", err)
	}
	w := newRouteWorld(t)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".Caddyfile")
		t.Run(name, func(t *testing.T) {
			f := w.read(t, file)
			adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(f.text), nil)
			if err != nil {
				t.Fatalf("%s\n%v", f.text, err)
			}
			config, err := routes.Parse(adapted)
			if err != nil {
				t.Fatal(err)
			}
			findings, err := routes.Check(config)
			if err != nil {
				t.Fatal(err)
			}
			if got := kinds(findings); !slices.Equal(got, f.finds) {
				t.Errorf("found %q, want %q: %v\n%s", got, f.finds, findings, adapted)
			}
			if (len(f.finds) == 0) != strings.HasPrefix(name, "good_") {
				t.Errorf("the name says something else than %q", f.finds)
			}

			var live []routes.Finding
			restore := paywall.SetRouteFindings(func(f []routes.Finding) []routes.Finding { live = f; return f })
			err = gate.Load(f.text)
			restore()
			t.Cleanup(func() { _ = caddy.Stop() })
			if refused := strings.HasPrefix(name, "bad_"); refused != (err != nil) {
				t.Errorf("loading it: %v", err)
			}
			if !slices.Equal(live, findings) {
				t.Errorf("when it loads other things are found than in its JSON:\n%v\n%v", live, findings)
			}
			f = w.read(t, file) // on another port: the server that goes may still listen on the first
			defer paywall.SetRouteFindings(func([]routes.Finding) []routes.Finding { return nil })()
			if err := gate.Load(f.text); err != nil {
				t.Fatal(err)
			}
			for _, words := range f.requests {
				f.try(t, words)
			}
		})
	}
}

// try sends a request without a payment: open means that goods come.
func (f routeFixture) try(t *testing.T, words []string) {
	t.Helper()
	port := f.ports[0]
	r, err := http.NewRequestWithContext(context.Background(), words[1], "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 3; i+1 < len(words); i += 2 {
		switch name := strings.TrimSuffix(words[i], ":"); name {
		case "Host":
			r.Host = words[i+1]
		case "PORT":
			port = f.ports[1]
		default:
			r.Header.Set(name, words[i+1])
		}
	}
	u, err := r.URL.Parse("http://127.0.0.1:" + port + words[2])
	if err != nil {
		t.Fatal(err)
	}
	if r.URL = u; r.Host != "" {
		r.Host += ":" + port
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		if words[0] == "open" {
			t.Errorf("%s: %v", words, err)
		}
		return
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	open := strings.Contains(string(body), gate.Goods) || res.StatusCode == 200 && len(body) > 0
	if open != (words[0] == "open") {
		t.Errorf("%s: %d %s", words, res.StatusCode, body)
	}
}

// TestCacheOutsideIsOpen shows what a cache before the paywall does: one pays, and
// all are served.
func TestCacheOutsideIsOpen(t *testing.T) {
	w := gate.Prepare(t)
	text := strings.Replace(w.Caddyfile("price /paid/* $0.01", "cache"), "admin off", "admin off\norder cache before paywall", 1)
	if err := gate.Load(text); err == nil || !strings.Contains(err.Error(), "order cache after paywall") {
		t.Fatalf("it loads, or says something else: %v", err)
	}
	defer paywall.SetRouteFindings(func([]routes.Finding) []routes.Finding { return nil })()
	w.URL = "http://" + loopback.FreeAddress(t)
	w.Load(strings.Replace(w.Caddyfile("price /paid/* $0.01", "cache"), "admin off", "admin off\norder cache before paywall", 1))
	w.Expect(w.Get("/paid/x"), http.StatusPaymentRequired, "Payment required")
	w.Expect(w.Pay(http.MethodGet, "/paid/x"), http.StatusOK, "")
	if res := w.Get("/paid/x"); res.StatusCode != http.StatusOK || res.Text != gate.Goods {
		t.Errorf("the cache is not open: %d %s", res.StatusCode, res.Text)
	}
}

// TestSidecarsWithoutAnOrderAreSeen: JSON may name encodings and no order of
// them, and Caddy keeps no JSON of them once they are loaded.
func TestSidecarsWithoutAnOrderAreSeen(t *testing.T) {
	w := newRouteWorld(t)
	f := w.read(t, "testdata/routes/bad_precompressed.Caddyfile")
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(f.text), nil)
	if err != nil {
		t.Fatal(err)
	}
	config := regexp.MustCompile(`"precompressed_order":\[[^]]*\],?`).ReplaceAll(adapted, nil)
	config = bytes.ReplaceAll(config, []byte(",}"), []byte("}"))
	if bytes.Equal(config, adapted) {
		t.Fatal("there is no order to take out")
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	if err := caddy.Load(config, true); err == nil || !strings.Contains(err.Error(), "/report.pdf.br") {
		t.Errorf("it loads, or says something else: %v", err)
	}
}

// TestExamplesAreClosed: nothing is found in the configs of the pages.
func TestExamplesAreClosed(t *testing.T) {
	t.Setenv("PAYEE", gate.PayTo)
	for file, text := range pages(t) {
		for _, m := range caddyfileBlock.FindAllStringSubmatchIndex(text, -1) {
			adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(inPlace(text[m[2]:m[3]])), nil)
			if err != nil {
				continue // TestExamplesLoad says so
			}
			config, err := routes.Parse(adapted)
			if err != nil {
				t.Fatal(err)
			}
			findings, err := routes.Check(config)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range findings {
				if f.Rule != routes.RuleAccessLog {
					t.Errorf("%s:%d: %s %s: %s", file, strings.Count(text[:m[2]], "\n")+1, f.Severity, f.Rule, f)
				}
			}
		}
	}
}

// TestRefusedRoutesLeaveTheOldConfig: a config that is refused says which rule of which site,
// and the one before it goes on.
func TestRefusedRoutesLeaveTheOldConfig(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	bad := strings.Replace(w.Caddyfile("price /paid/* $0.01"), w.URL+" {", w.URL+" {\nhandle /paid/* {\nrespond free\n}", 1)
	bad = strings.Replace(bad, "admin off", "admin off\norder handle before paywall", 1)
	if err := gate.Load(bad); err == nil || !strings.Contains(err.Error(), "127.0.0.1: respond answers before the paywall") {
		t.Fatalf("it loads, or says something else: %v", err)
	}
	for range 20 {
		var res gate.Answer
		w.Until(func() bool { // what the refused config's listener had taken is reset
			res = w.Get("/paid/x")
			return res.Err == nil
		})
		w.Expect(res, http.StatusPaymentRequired, "Payment required")
	}
}
