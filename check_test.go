package paywall_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-paywall/caddy-paywall/check"
	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// command runs caddy paywall with arguments.
func command(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	root, parent := &cobra.Command{Use: "caddy"}, &cobra.Command{Use: "paywall"}
	caddycmd.Commands()["paywall"].CobraFunc(parent)
	root.AddCommand(parent)
	var stdout, stderr bytes.Buffer
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	root.SetArgs(append([]string{"paywall"}, args...))
	err := root.ExecuteContext(t.Context())
	if err != nil {
		code = 1
		if v := reflect.Indirect(reflect.ValueOf(err)); v.Kind() == reflect.Struct && v.FieldByName("ExitCode").IsValid() {
			code = int(v.FieldByName("ExitCode").Int())
		}
	}
	return code, stdout.String(), stderr.String()
}

// secureWorld is a gate over TLS, on all three versions of HTTP.
func secureWorld(t *testing.T, site string) *gate.World {
	t.Helper()
	w := gate.Prepare(t)
	w.URL = "https://" + strings.Replace(strings.TrimPrefix(w.URL, "http://"), "127.0.0.1", "localhost", 1)
	w.Load(secureCaddyfile(w, site))
	return w
}

func secureCaddyfile(w *gate.World, site string) string {
	w.T.Helper()
	certificate, err := loopback.Certificate(w.T.TempDir(), "localhost")
	if err != nil {
		w.T.Fatal(err)
	}
	return `{
		admin off
		persist_config off
		auto_https off
		grace_period 1s
		log {
			output file ` + w.LogFile + `
			level DEBUG
		}
		paywall {
			ledger memory i_accept_loss
			facilitator fake ` + w.Facilitator.URL + `
		}
	}
	(pay) {
		accept base-sepolia usdc ` + gate.PayTo + `
		facilitator fake
	}
	` + w.URL + ` {
		tls ` + certificate + ` ` + certificate + `
		` + strings.ReplaceAll(site, "UPSTREAM", strings.TrimPrefix(w.Upstream.URL, "http://")) + `
	}`
}

// look checks a path of the gate.
func look(w *gate.World, path string, change ...func(*check.Options, *check.Target)) *check.Report {
	w.T.Helper()
	u, err := check.ParseURL(w.URL + path)
	if err != nil {
		w.T.Fatal(err)
	}
	target := check.Target{URL: u}
	options := check.Options{Rate: 100000, Insecure: true}
	for _, c := range change {
		c(&options, &target)
	}
	report, err := check.Run(context.Background(), options, []check.Target{target})
	if err != nil {
		w.T.Fatal(err)
	}
	return report
}

func rulesOf(r *check.Report) []string {
	var rules []string
	for _, f := range r.Findings {
		rules = append(rules, string(f.Severity)+" "+f.Rule)
	}
	slices.Sort(rules)
	return slices.Compact(rules)
}

// TestCheckFindsNothingInAGoodGate: over every version of HTTP, and the upstream
// sees only what may ask it: preflights.
func TestCheckFindsNothingInAGoodGate(t *testing.T) {
	w := secureWorld(t, `paywall {
			import pay
			price /paid/* $0.01 "A thing"
		}
		reverse_proxy UPSTREAM`)
	w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodOptions && strings.HasPrefix(strings.ToLower(r.URL.Path), "/paid") {
			t.Errorf("the upstream was asked: %s %s", r.Method, r.RequestURI)
		}
		http.NotFound(rw, r)
	})
	for _, path := range []string{"/paid/x", "/paid/x?a=b", "/paid/deep/er/x"} {
		r := look(w, path, func(o *check.Options, _ *check.Target) { o.AllMethods = true })
		if got := rulesOf(r); !slices.Equal(got, []string{"warning test_money"}) {
			t.Errorf("%s: %v", path, r.Findings)
		}
		if want := []string{"HTTP/1.1", "HTTP/2", "HTTP/3"}; !slices.Equal(r.Protocols, want) || r.Complete != 1 || r.Requests < 200 || r.Unanswered != 0 {
			t.Errorf("%s: %v, %d complete, %d requests, %d unanswered", path, r.Protocols, r.Complete, r.Requests, r.Unanswered)
		}
		if testing.Verbose() {
			t.Logf("%s: %d requests", path, r.Requests)
		}
	}
	for _, body := range w.Facilitator.Asked() {
		t.Errorf("a payment was sent: %s", body)
	}
}

// onePage is an upstream that decodes twice and has one page.
func onePage(w http.ResponseWriter, r *http.Request) {
	if path, err := url.PathUnescape(r.URL.Path); err != nil || path != "/paid/x" {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write([]byte(gate.Goods))
}

// TestCheckFindsHoles: gates that are broken on purpose, and what is found.
func TestCheckFindsHoles(t *testing.T) {
	const priced = "paywall {\nimport pay\nprice /paid/* $0.01\n}\n"
	const proxy = "reverse_proxy UPSTREAM\n"
	for name, tt := range map[string]struct {
		site, path, finds string
		request           string // which request finds it
		change            func(*check.Options, *check.Target)
	}{
		"no gate":            {site: proxy, finds: "open served"},
		"the goods moved":    {site: "redir https://elsewhere.example{uri}", finds: "warning redirect"},
		"a redirect":         {site: "redir * /else", finds: "warning not_priced"},
		"nothing there":      {site: "respond 404", finds: "warning not_priced"},
		"an error":           {site: "respond 500", finds: "warning not_sold"},
		"a login before":     {site: "respond 401", finds: "warning not_sold"},
		"a path matcher":     {site: "@paid path /paid/*\nroute @paid {\n" + priced + proxy + "}\n" + proxy, finds: "open served", request: "%252f"},
		"a method forgotten": {site: "@get method GET\nroute @get {\n" + priced + proxy + "}\n" + proxy, finds: "open served", request: "HEAD"},
		"a crawler is let through": {
			site: "@bot header User-Agent *Googlebot*\nhandle @bot {\n" + proxy + "}\nhandle {\n" + priced + proxy + "}\n", finds: "open served", request: "as a search engine",
		},
		"ranges are free": {
			site: "@range header Range *\nhandle @range {\n" + proxy + "}\nhandle {\n" + priced + proxy + "}\n", finds: "open served", request: "for a range",
		},
		"only HTTP/3 is open": {
			site: "@three protocol http/3\nhandle @three {\n" + proxy + "}\nhandle {\n" + priced + proxy + "}\n", finds: "open served",
		},
		"past the paywall": {
			site: "@odd path_regexp ;\nhandle @odd {\nrespond 404\n}\nhandle {\n" + priced + proxy + "}\n", finds: "warning reached_upstream",
			change: func(_ *check.Options, t *check.Target) { t.Made = true },
		},
		"another 402":        {site: "respond 402", finds: "warning challenge"},
		"an odd offer":       {site: "header Payment-Required eyJ4NDAyVmVyc2lvbiI6MiwiYWNjZXB0cyI6W3sic2NoZW1lIjoiZXhhY3QiLCJhbW91bnQiOjF9XX0=\nrespond 402", finds: "warning unpayable"},
		"a 402 to be cached": {site: "header >Cache-Control \"max-age=60\"\n" + priced + proxy, finds: "warning cacheable"},
		"a 402 from a cache": {site: "header >Age 3\n" + priced + proxy, finds: "warning cacheable"},
		"cors off":           {site: "paywall {\nimport pay\ncors off\nprice /paid/* $0.01\n}\n" + proxy, finds: "warning cors"},
		"no preflight":       {site: "paywall {\nimport pay\ncors off\nprice /paid/* $0.01\n}\n" + proxy, finds: "warning preflight", request: "as a CORS preflight"},
		"another host named": {site: "paywall {\nimport pay\npublic_url https://shop.example\nprice /paid/* $0.01\n}\n" + proxy, finds: "warning resource_url"},
		"http named":         {site: "paywall {\nimport pay\npublic_url http://localhost\nprice /paid/* $0.01\n}\n" + proxy, finds: "warning resource_url"},
		"dear":               {site: "paywall {\nimport pay\nprice /paid/* $1.01\n}\n" + proxy, finds: "warning not_paid_unasked"},
		"strange token": {
			site:  "paywall {\naccept base-sepolia 0x5FbDB2315678afecb367f032d93F642f64180aa3 " + gate.PayTo + " {\ndecimals 6\nname A\nversion 1\npeg usd\n}\nfacilitator fake\nprice /paid/* $0.01\n}\n" + proxy,
			finds: "warning not_paid_unasked",
		},
		"wrong domain": {
			site:  "paywall {\naccept base-sepolia usdc " + gate.PayTo + " {\nname \"USD Coin\"\n}\nfacilitator fake\nprice /paid/* $0.01\n}\n" + proxy,
			finds: "warning unpayable",
		},
		"no old clients": {
			site:  "paywall {\naccept base-sepolia usdc " + gate.PayTo + " {\ntransfer permit2\n}\nfacilitator fake\nprice /paid/* $0.01\n}\n" + proxy,
			finds: "warning version_1",
		},
		"large":             {site: "paywall {\nimport pay\nprice /paid/* $0.01 \"" + strings.Repeat("long ", 1300) + "\"\n}\n" + proxy, finds: "warning too_large"},
		"priced page parts": {site: "handle /page {\nheader Content-Type text/html\nrespond `<img src=\"/paid/picture\"><script src=\"/free.js\"></script>`\n}\nhandle {\n" + priced + proxy + "}\n", finds: "warning priced_subresource"},
	} {
		t.Run(name, func(t *testing.T) {
			w := secureWorld(t, tt.site)
			w.Upstream.On(onePage)
			r := look(w, "/paid/x", func(o *check.Options, target *check.Target) {
				if o.MaxRequests = 10; tt.request != "" || tt.change != nil {
					o.MaxRequests = 0 // it is found among all the others
				}
				if name == "priced page parts" {
					o.Pages = []string{w.URL + "/page"}
				}
				if tt.change != nil {
					tt.change(o, target)
				}
			})
			if !slices.Contains(rulesOf(r), tt.finds) {
				t.Errorf("%q is not found: %v", tt.finds, r.Findings)
			}
			if tt.request != "" && !slices.ContainsFunc(r.Findings, func(f check.Finding) bool { return strings.Contains(f.Request, tt.request) }) {
				t.Errorf("not found by %s: %v", tt.request, r.Findings)
			}
		})
	}
}

// TestCheckOtherHost: a site for all hosts beside the gate is found, and so is
// one without TLS.
func TestCheckOtherHost(t *testing.T) {
	w := gate.Prepare(t)
	origin := strings.Replace(w.URL, "127.0.0.1", "localhost", 1)
	port := origin[strings.LastIndexByte(origin, ':'):]
	w.URL = origin
	w.Upstream.On(onePage)
	w.Load(w.Caddyfile("price /paid/* $0.01") + "\nhttp://" + port + " {\nreverse_proxy " + strings.TrimPrefix(w.Upstream.URL, "http://") + "\n}")
	if r := look(w, "/paid/x"); !slices.Contains(rulesOf(r), "warning other_host") {
		t.Errorf("%v", r.Findings)
	}
}

// TestCheckIsBounded: it stops where it is told to.
func TestCheckIsBounded(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01")
	r := look(w, "/paid/x", func(o *check.Options, _ *check.Target) { o.MaxRequests = 17 })
	if r.Requests != 17 || !r.Bounded || r.Complete != 0 {
		t.Errorf("%+v", r)
	}
}

// TestCheckUnreachable: what cannot be reached is not closed.
func TestCheckUnreachable(t *testing.T) {
	code, out, errOut := command(t, "check", "--quiet", "http://"+loopback.FreeAddress(t)+"/x")
	if code != 8 || !strings.Contains(out, "not reached") {
		t.Errorf("%d %s %s", code, out, errOut)
	}
}

// TestCheckCommand: the lines of a config, at the origin that is given or the one
// that the config names, and the exit codes.
func TestCheckCommand(t *testing.T) {
	w := gate.New(t, "price /paid/* $0.01\n price POST /act $0.02\n price *.pdf $0.03\n price @m /matched $0.04", "@m header A b")
	file := filepath.Join(t.TempDir(), "Caddyfile")
	text := w.Caddyfile("price /paid/* $0.01\n price POST /act $0.02\n price *.pdf $0.03\n price @m /matched $0.04", "@m header A b")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := command(t, "check", "--config", file, "--rate", "100000", "--format", "json")
	var r check.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err, out)
	}
	if code != 4 || r.Targets != 3 || r.Complete != 3 || !slices.Equal(rulesOf(&r), []string{"warning test_money"}) {
		t.Errorf("exit %d: %s %s", code, out, errOut)
	}
	for _, text := range []string{w.URL + "/paid/x in every way", "not checked: `price /matched $0.04`"} {
		if !strings.Contains(errOut, text) {
			t.Errorf("%q is not said: %s", text, errOut)
		}
	}
	w.Counts(w.Upstream.Hits.Load(), 0, 0)

	// The free path is open, of course, and so the exit code.
	code, out, _ = command(t, "check", "--rate", "100000", "--quiet", w.URL+"/free")
	if code != 3 || !strings.Contains(out, "OPEN") || !strings.Contains(out, "served without a payment") {
		t.Errorf("exit %d: %s", code, out)
	}
	code, out, errOut = command(t, "check", "--config", file, "--rate", "100000", "--quiet", "http://"+loopback.FreeAddress(t))
	if code != 8 || !strings.Contains(out, "not reached") {
		t.Errorf("another origin: exit %d: %s %s", code, out, errOut)
	}
	for _, args := range [][]string{{}, {"ftp://a/b"}, {"--rate", "0", w.URL + "/x"}, {"--format", "xml", w.URL + "/x"}, {"--nope"}} {
		if code, _, errOut := command(t, append([]string{"check"}, args...)...); code != 2 || errOut == "" {
			t.Errorf("%q: exit %d %s", args, code, errOut)
		}
	}
}

// TestValidateCommand: the routes' errors have an exit code of their own.
func TestValidateCommand(t *testing.T) {
	w := newRouteWorld(t)
	for name, want := range map[string]int{"good_plain": 0, "warn_narrow_before": 0, "bad_proxy_first": 3} {
		f := w.read(t, filepath.Join("testdata/routes", name+".Caddyfile"))
		file := filepath.Join(t.TempDir(), "Caddyfile")
		if err := os.WriteFile(file, []byte(f.text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errOut := command(t, "validate", "--config", file)
		if code != want || len(f.finds) > 0 && !strings.Contains(out, strings.Fields(f.finds[0])[1]) {
			t.Errorf("%s: exit %d\n%s%s", name, code, out, errOut)
		}
		code, out, errOut = command(t, "validate", "--config", file, "--format", "json")
		var findings []map[string]string
		if err := json.Unmarshal([]byte(out), &findings); err != nil || code != want || len(findings) != len(f.finds) {
			t.Errorf("%s: exit %d, %v\n%s%s", name, code, err, out, errOut)
		}
	}
	if code, _, errOut := command(t, "validate", "--config", "/nowhere/Caddyfile"); code != 1 || !strings.Contains(errOut, "nowhere") {
		t.Errorf("no file: exit %d %s", code, errOut)
	}
	if code, _, errOut := command(t, "validate", "surplus"); code == 0 {
		t.Errorf("a word too many: exit %d %s", code, errOut)
	}
}
