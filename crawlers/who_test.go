package crawlers

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/crawlers/botauth"
	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
)

func newChecker(t testing.TB, config Config, env Environment) *Checker {
	t.Helper()
	if env.Client == nil {
		env.Client = clientTo(t, http.NotFound) // nothing of a test leaves the machine
	}
	c, err := New(config, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Destruct() })
	return c
}

func asking(userAgent string) *http.Request {
	r, _ := http.NewRequest(http.MethodGet, "http://shop.example/a", nil)
	r.Header.Set("User-Agent", userAgent)
	return r
}

const googlebot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"

// TestFalseGooglebotIsNotVerified: whatever the DNS of its own address says, whatever it
// signs, a stranger is not the search engine.
func TestFalseGooglebotIsNotVerified(t *testing.T) {
	dns := loopback.NewDNS(t)
	file := filepath.Join(t.TempDir(), "googlebot.json")
	if err := os.WriteFile(file, []byte(published), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newChecker(t, Config{Resolver: dns.Address(), Agents: []Crawler{{Token: "Googlebot", Ranges: []string{file}}}}, Environment{})

	dns.Name("198.51.100.1", "crawl-198-51-100-1.googlebot.com") // the owner of an address can say so
	dns.Name("198.51.100.2", "crawl.googlebot.com.evil.example")
	dns.Confirm("crawl.googlebot.com.evil.example", "198.51.100.2")
	dns.Name("198.51.100.3", "crawl-3.googlebot.com")
	dns.Confirm("crawl-3.googlebot.com", "198.51.100.30")
	dns.Name("198.51.100.4", "crawl-4.googlebot.com")
	dns.Confirm("crawl-4.googlebot.com", "198.51.100.4")
	dns.Name("198.51.100.5", "spider.yandex.com")
	dns.Confirm("spider.yandex.com", "198.51.100.5")

	for address, want := range map[string]Proof{
		"198.51.100.1": Claimed, "198.51.100.2": Claimed, "198.51.100.3": Claimed, "198.51.100.5": Claimed, "198.51.100.9": Claimed,
		"198.51.100.4": Verified, "192.0.2.7": Verified, "2001:db8:1::1": Verified, "2001:db8:2::1": Claimed,
	} {
		for range 2 { // the second time from what is remembered
			got := c.Who(asking(googlebot), netip.MustParseAddr(address))
			if got != (Client{Name: "Googlebot", Kind: Search, Operator: "Google", Proof: want}) {
				t.Errorf("%s: %+v", address, got)
			}
		}
	}
	// An address of Google's makes a browser no crawler.
	if got := c.Who(asking("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/148 Safari/537.36"), netip.MustParseAddr("198.51.100.4")); got != (Client{Proof: Browser}) {
		t.Errorf("%+v", got)
	}
	if got := c.Who(asking(googlebot), netip.Addr{}); got.Proof != Claimed {
		t.Errorf("without an address: %+v", got)
	}
}

// TestHangingResolverHoldsNobodyUp: nobody is verified by it, a request waits a bounded
// time for it once, and strangers cannot have more asked than there is room for.
func TestHangingResolverHoldsNobodyUp(t *testing.T) {
	dns := loopback.NewDNS(t)
	dns.Hangs.Store(true)
	c := newChecker(t, Config{Resolver: dns.Address(), Agents: []Crawler{{Token: "Googlebot", Ranges: []string{}}}}, Environment{})
	before := runtime.NumGoroutine()
	var requests sync.WaitGroup
	for i := range 3000 {
		requests.Go(func() {
			if got := c.Who(asking(googlebot), netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})); got.Proof != Claimed {
				t.Errorf("%+v", got)
			}
		})
	}
	requests.Wait()
	c.hosts.mu.Lock()
	if n := len(c.hosts.under); n > maxLookups {
		t.Errorf("%d lookups at once", n)
	}
	c.hosts.mu.Unlock()
	if n := runtime.NumGoroutine() - before; n > 4*maxLookups {
		t.Errorf("%d goroutines are left", n)
	}
	// Glance does not wait at all: all of these would take a day and a half.
	for i := range 300_000 {
		c.Glance(asking(googlebot), netip.AddrFrom4([4]byte{198, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if n := c.hosts.known.Len(); n > 2*hostsKept {
		t.Errorf("%d addresses are kept", n)
	}
}

// TestManyAddressesOfOneCrawlerAreVerified: more than are looked up at once, when it comes
// for the first time.
func TestManyAddressesOfOneCrawlerAreVerified(t *testing.T) {
	dns := loopback.NewDNS(t)
	c := newChecker(t, Config{Resolver: dns.Address()}, Environment{})
	var requests sync.WaitGroup
	for i := range 3 * maxLookups1 {
		address := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
		name := fmt.Sprintf("spider-%d.yandex.com", i)
		dns.Name(address.String(), name)
		dns.Confirm(name, address.String())
		requests.Go(func() {
			if got := c.Who(asking("YandexBot"), address); got.Proof != Verified {
				t.Errorf("%s: %+v", address, got)
			}
		})
	}
	requests.Wait()
}

// TestListsAreFetchedInTheBackground: and only of those who come, or are expected.
func TestListsAreFetchedInTheBackground(t *testing.T) {
	var asked atomic.Int64
	env := Environment{Dir: t.TempDir(), Client: clientTo(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Host == "openai.com" && r.URL.Path == "/gptbot.json" {
			_, _ = io.WriteString(w, published)
			return
		}
		http.NotFound(w, r)
	})}
	c := newChecker(t, Config{}, env)
	c.Who(asking("curl/8"), inside)
	c.Claim(asking("GPTBot"))
	if n := asked.Load(); n != 0 {
		t.Errorf("%d lists were fetched for nobody", n)
	}
	if got := c.Who(asking("GPTBot"), inside); got.Proof != Claimed {
		t.Errorf("before the list is there: %+v", got)
	}
	until(t, func() bool { return c.Who(asking("GPTBot"), inside).Proof == Verified })
	if got := c.Who(asking("GPTBot"), outside); got.Proof != Claimed {
		t.Errorf("from elsewhere: %+v", got)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("%d lists were fetched for one crawler", n)
	}
	// After a restart it is there at once, and not fetched again while it is fresh.
	restarted := newChecker(t, Config{}, env)
	if got := restarted.Who(asking("GPTBot"), inside); got.Proof != Verified || asked.Load() != 1 {
		t.Errorf("%+v, and %d were fetched", got, asked.Load())
	}
	row, _ := restarted.Table().Named("ClaudeBot")
	restarted.Expect(row)
	until(t, func() bool { return asked.Load() == 2 })
}

func until(t *testing.T, so func() bool) {
	t.Helper()
	for range 1000 {
		if so() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("it does not come to that")
}

// signed makes a request that is signed for a domain.
func signed(userAgent, domain string, private ed25519.PrivateKey) *http.Request {
	r := asking(userAgent)
	now := time.Now().Unix()
	input := fmt.Sprintf(`("@authority" "signature-agent";key="sig");created=%d;expires=%d;keyid="%s";tag="web-bot-auth"`, now, now+60, botauth.Thumbprint(private.Public().(ed25519.PublicKey)))
	base := "\"@authority\": shop.example\n\"signature-agent\";key=\"sig\": \"https://" + domain + "\"\n\"@signature-params\": " + input
	r.Header.Set("Signature-Agent", `sig="https://`+domain+`"`)
	r.Header.Set("Signature-Input", "sig="+input)
	r.Header.Set("Signature", "sig=:"+base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte(base)))+":")
	return r
}

// TestSignatureSaysWhoAsks: it outranks what the User-Agent says, and is good for nobody
// else.
func TestSignatureSaysWhoAsks(t *testing.T) {
	const chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/148 Safari/537.36"
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var asked sync.Map
	c := newChecker(t, Config{Agents: []Crawler{{Token: "OwnBot", Kind: Monitor, Directories: []string{"own.example"}}, {Token: "Googlebot", Ranges: []string{}, RDNS: []string{}}}}, Environment{
		Client: clientTo(t, func(w http.ResponseWriter, r *http.Request) {
			asked.Store(r.Host, true)
			w.Header().Set("Content-Type", "application/http-message-signatures-directory+json")
			fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public))
		}),
	})
	for name, tc := range map[string]struct {
		request *http.Request
		want    Client
	}{
		"a browser that an agent drives": {signed(chrome, "chatgpt.com", private), Client{"ChatGPT Agent", Agent, "OpenAI", Verified}},
		"a tool":                         {signed("curl/8", "own.example", private), Client{"OwnBot", Monitor, "", Verified}},
		"an agent as a search engine":    {signed(googlebot, "chatgpt.com", private), Client{"ChatGPT Agent", Agent, "OpenAI", Verified}},
		"a stranger as the agent":        {signed(chrome, "chatgpt.com", stranger), Client{"ChatGPT Agent", Agent, "OpenAI", Claimed}},
		"a stranger as a search engine":  {signed(googlebot, "chatgpt.com", stranger), Client{"Googlebot", Search, "Google", Claimed}},
		"a stranger's own directory":     {signed(googlebot, "evil.example", private), Client{"Googlebot", Search, "Google", Claimed}},
		"a browser of a stranger":        {signed(chrome, "evil.example", private), Client{Proof: Browser}},
	} {
		if got := c.Who(tc.request, inside); got != tc.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if _, ok := asked.Load("evil.example"); ok {
		t.Error("a stranger's directory was fetched")
	}
}

// TestMillionUserAgents: nothing is remembered of them.
func TestMillionUserAgents(t *testing.T) {
	c := newChecker(t, Config{}, Environment{})
	r := asking("")
	value := []string{""}
	r.Header["User-Agent"] = value
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 1_000_000 {
		value[0] = "OwnBot/" + strconv.Itoa(i)
		c.Who(r, inside)
	}
	if after := heap(); after > before+1<<20 {
		t.Errorf("%d bytes more", after-before)
	}
}

// TestConfigErrors: said at load, with the word that is wrong.
func TestConfigErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		config Config
		want   string
	}{
		"an agent of no kind": {Config{Agents: []Crawler{{Token: "OwnBot", RDNS: []string{"own.example"}}}}, "add `agent OwnBot <kind>`"},
		"an unknown kind":     {Config{Agents: []Crawler{{Token: "OwnBot", Kind: "nice"}}}, "there are: train, search"},
		"given twice":         {Config{Agents: []Crawler{{Token: "GPTBot"}, {Token: "gptbot"}}}, "given twice"},
		"no file":             {Config{Agents: []Crawler{{Token: "GPTBot", Ranges: []string{"/nope"}}}}, "/nope"},
		"a resolver's name":   {Config{Resolver: "dns.example"}, "address of a DNS server"},
		"a resolver's port":   {Config{Resolver: "127.0.0.1:0"}, "address of a DNS server"},
	} {
		if _, err := New(tc.config, Environment{}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkWho(b *testing.B) {
	file := filepath.Join(b.TempDir(), "googlebot.json")
	if err := os.WriteFile(file, []byte(published), 0o600); err != nil {
		b.Fatal(err)
	}
	c := newChecker(b, Config{Agents: []Crawler{{Token: "Googlebot", Ranges: []string{file}}}}, Environment{})
	for name, r := range map[string]*http.Request{"verified by its address": asking(googlebot), "a browser": asking("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/148 Safari/537.36")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.Who(r, inside)
			}
		})
	}
}
