package promises

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/loopback"
	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Reloads, five a second, that change prices and what the facilitator says it
// supports, while payers buy. Nobody is refused, nobody pays what was not asked
// for, nothing is paid twice or lost, and in the end nothing is left behind.
//
// Caddy itself resets connections during a reload: those that wait in the queue
// of the listener that is closed (SO_REUSEPORT), paywall or not. A site without a
// paywall is asked beside the others, to show that. So clients connect again
// after a reset before the first byte of an answer, as every client does, and
// send the same payment again, which must be safe.
func TestReloadsUnderLoadLoseNoPayment(t *testing.T) {
	const (
		lasts   = 4 * time.Second
		every   = 200 * time.Millisecond
		clients = 6
	)
	w := gate.Prepare(t)
	plain := "http://" + loopback.FreeAddress(t)
	ledger := filepath.Join(t.TempDir(), "ledger.db")
	prices := []string{"0.01", "0.02", "0.03"}
	kinds := []string{
		`{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:84532"}],"extensions":[],"signers":{}}`,
		twoNetworks,
		`{"kinds":[{"x402Version":1,"scheme":"exact","network":"base-sepolia"},{"x402Version":2,"scheme":"exact","network":"eip155:84532","extra":{"n":1}}],"extensions":["bazaar"],"signers":{}}`,
	}
	config := func(i int) string {
		text := w.Caddyfile(fmt.Sprintf("accept base-sepolia usdc %s\naccept base usdc %s\nprice /paid/* $%s", gate.PayTo, gate.PayTo, prices[i%len(prices)]))
		text = strings.Replace(text, "ledger memory i_accept_loss", "ledger sqlite "+ledger, 1)
		// A facilitator of a new name now and then, so that it is asked anew.
		if i%2 == 1 {
			text = strings.NewReplacer("facilitator fake http", "facilitator odd http", "facilitator fake", "facilitator odd").Replace(text)
		}
		return text + "\n" + plain + " {\n respond ok\n}\n"
	}
	w.Load(config(0))
	w.Until(func() bool { return w.Get("/paid/warm").Is(402) })

	// What runs before, to compare: after one reload, so that all that is made
	// once is there.
	w.Load(config(1))
	w.Load(config(0))
	w.Until(func() bool { return w.Get("/paid/warm").Is(402) })
	w.Expect(w.Pay(http.MethodGet, "/paid/warm"), 200, "")
	before := settle(t, w)
	transfers, hits := w.Facilitator.Transfers(), w.Upstream.Hits.Load()

	stop := make(chan struct{})
	var resets, plainResets, sales, asked atomic.Int64
	var mu sync.Mutex
	sold := map[string]bool{} // by transaction
	charged := map[string]int{}
	var all sync.WaitGroup
	buyer := func(n int) {
		c := &reloadClient{t: t, resets: &resets, http: newClient()}
		defer c.http.CloseIdleConnections()
		p := gate.NewPayer(t)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			url := fmt.Sprintf("%s/paid/%d/%d", w.URL, n, i)
			res := c.get(url, "")
			if res.StatusCode != http.StatusPaymentRequired {
				t.Errorf("asked for the price: %d %s", res.StatusCode, res.Text)
				return
			}
			challenge, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired))
			if err != nil {
				t.Error(err)
				return
			}
			offer := challenge.Accepts[i%len(challenge.Accepts)]
			s := p.Sign(t, offer, time.Now())
			if i%3 == 0 {
				time.Sleep(every) // pay what was asked for before the latest reload
			}
			res = c.get(url, s.V2(t))
			if res.StatusCode != http.StatusOK || res.Text != gate.Goods {
				t.Errorf("paid %s of %s: %d %s", offer.Amount, offer.Network, res.StatusCode, res.Text)
				return
			}
			receipt, err := x402.DecodeReceipt(res.Header.Get(x402.HeaderPaymentResponse))
			if err != nil || !receipt.Success || receipt.Network != offer.Network {
				t.Errorf("receipt %+v %v", receipt, err)
				return
			}
			if i%4 == 0 { // and once more, in whatever config
				again := c.get(url, s.V2(t))
				for range 1000 {
					if again.StatusCode != http.StatusConflict { // its end is not yet recorded
						break
					}
					time.Sleep(time.Millisecond)
					again = c.get(url, s.V2(t))
				}
				challenge, err := x402.DecodeChallenge(again.Header.Get(x402.HeaderPaymentRequired))
				if again.StatusCode != http.StatusPaymentRequired || err != nil || challenge.Error != string(x402.CodePaymentAlreadyUsed) {
					t.Errorf("sent again: %d %s", again.StatusCode, again.Text)
					return
				}
			}
			mu.Lock()
			if sold[receipt.Transaction] {
				t.Errorf("two sales for transaction %s", receipt.Transaction)
			}
			sold[receipt.Transaction] = true
			charged[offer.Amount]++
			mu.Unlock()
			sales.Add(1)
		}
	}
	for n := range clients {
		all.Go(func() { buyer(n) })
	}
	// The same without a paywall, and a free path of the paywall's site.
	for _, url := range []string{plain + "/", w.URL + "/free"} {
		all.Go(func() {
			counter := &resets
			if strings.HasPrefix(url, plain) {
				counter = &plainResets
			}
			c := &reloadClient{t: t, resets: counter, http: newClient()}
			defer c.http.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				c.http.CloseIdleConnections() // a connection each
				if res := c.get(url, ""); res.StatusCode != http.StatusOK {
					t.Errorf("%s: %d %s", url, res.StatusCode, res.Text)
					return
				}
				asked.Add(1)
			}
		})
	}
	reloaded := 0
	enough := func() bool { // however slow the machine is
		mu.Lock()
		defer mu.Unlock()
		return sales.Load() >= 20 && len(charged) == len(prices) && reloaded >= 5 || t.Failed()
	}
	for end := time.Now().Add(lasts); time.Now().Before(end) || !enough() && time.Now().Before(end.Add(time.Minute)); reloaded++ {
		next := time.Now().Add(every)
		w.Facilitator.Kinds.Store(kinds[reloaded%len(kinds)])
		if err := gate.Load(config(reloaded + 1)); err != nil {
			t.Error(err)
			break
		}
		time.Sleep(time.Until(next))
	}
	close(stop)
	all.Wait()
	t.Logf("%d reloads; %d sales, by amount %v; %d free requests; connections reset: %d here, %d at the site without a paywall",
		reloaded, sales.Load(), charged, asked.Load(), resets.Load(), plainResets.Load())

	if got := w.Facilitator.Transfers() - transfers; int64(got) != sales.Load() {
		t.Errorf("%d transfers for %d sales", got, sales.Load())
	}
	free := asked.Load() // of which those at the site without a paywall met another handler
	if got := w.Upstream.Hits.Load() - hits; got < sales.Load() || got > sales.Load()+free {
		t.Errorf("the upstream ran %d times for %d sales and at most %d free requests", got, sales.Load(), free)
	}
	if sales.Load() < 20 || len(charged) < len(prices) || reloaded < 5 {
		t.Errorf("too little happened: %d reloads, %d sales, by amount %v", reloaded, sales.Load(), charged)
	}
	checkCharges(t, w.Facilitator)

	w.Load(config(0))
	w.Until(func() bool { return w.Get("/paid/warm").Is(402) })
	var after usage
	for range 100 { // what is idle ends by and by
		if after = settle(t, w); after.within(before) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("before %+v, after %+v", before, after)
	if !after.within(before) {
		var stacks [1 << 20]byte
		t.Errorf("left behind: before %+v, after %+v\n%s", before, after, stacks[:runtime.Stack(stacks[:], true)])
	}
}

// checkCharges wants every settlement to be for the amount that was signed, and
// asked for it.
func checkCharges(t *testing.T, f *gate.Facilitator) {
	t.Helper()
	for _, body := range f.Asked() {
		_, signed, _ := strings.Cut(string(body), `"value":"`)
		signed, _, _ = strings.Cut(signed, `"`)
		_, wanted, _ := strings.Cut(string(body[strings.Index(string(body), `"paymentRequirements"`):]), `"amount":"`)
		wanted, _, _ = strings.Cut(wanted, `"`)
		if signed == "" || signed != wanted {
			t.Errorf("signed %q, charged %q", signed, wanted)
		}
	}
}

// usage is what a process holds.
type usage struct {
	goroutines, files int
	heap              uint64
}

// within allows for what comes and goes by itself: idle connections and the
// records of what was sold.
func (u usage) within(before usage) bool {
	return u.goroutines <= before.goroutines+10 && u.files <= before.files+6 && u.heap <= before.heap+before.heap/2+16<<20
}

// settle lets go of what is idle and measures.
func settle(t *testing.T, w *gate.World) usage {
	t.Helper()
	w.HTTP.CloseIdleConnections()
	w.Facilitator.CloseClientConnections()
	w.Upstream.CloseClientConnections()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := usage{goroutines: runtime.NumGoroutine(), heap: m.HeapAlloc}
	if files, err := os.ReadDir("/proc/self/fd"); err == nil { // Linux
		u.files = len(files)
	}
	return u
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: 30 * time.Second}
}

// reloadClient connects again when its connection is reset before the first byte
// of an answer.
type reloadClient struct {
	t      *testing.T
	resets *atomic.Int64
	http   *http.Client
}

func (c *reloadClient) get(url, payment string) gate.Answer {
	c.t.Helper()
	for range 20 {
		r, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, url, nil)
		if err != nil {
			c.t.Error(err)
			return gate.Answer{Response: &http.Response{}}
		}
		if payment != "" {
			r.Header.Set(x402.HeaderPaymentSignature, payment)
		}
		res, err := c.http.Do(r)
		if err != nil {
			if !isReset(err) {
				c.t.Errorf("%s: %v", url, err)
				return gate.Answer{Response: &http.Response{}}
			}
			c.resets.Add(1)
			continue
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			c.t.Errorf("%s: broken off: %v", url, err) // an answer that had begun is never cut
			return gate.Answer{Response: &http.Response{}}
		}
		return gate.Answer{Response: res, Text: string(body)}
	}
	c.t.Errorf("%s: reset again and again", url)
	return gate.Answer{Response: &http.Response{}}
}

// isReset says whether a connection ended before anything came back on it, or was
// refused in the moment between two listeners.
func isReset(err error) bool {
	var op *net.OpError
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) ||
		errors.As(err, &op) && op.Op == "dial" && errors.Is(err, syscall.ECONNREFUSED)
}

// A reload does not wait for requests, cancels the old config's context and
// cleans its modules up; a purchase under way does not notice.
func TestPurchaseDoesNotNoticeAReload(t *testing.T) {
	for _, during := range []string{"verify", "upstream", "settle"} {
		t.Run(during, func(t *testing.T) {
			w := gate.New(t, "price /paid/* $0.01")
			caddyfile := w.Caddyfile("price /paid/* $0.02\nprice /new $0.01")
			reload := func(at string) {
				if at == during {
					w.Load(caddyfile)
				}
			}
			w.Facilitator.OnVerify(func(rw http.ResponseWriter, r *http.Request) {
				reload("verify")
				gate.Says(200, `{"isValid":true}`)(rw, r)
			})
			w.Facilitator.OnSettle(func(rw http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				reload("settle")
				w.Facilitator.Move(rw, body)
			})
			w.Upstream.On(func(rw http.ResponseWriter, r *http.Request) {
				reload("upstream")
				_, _ = rw.Write([]byte(gate.Goods))
			})
			s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
			res := w.Get("/paid/x", "PAYMENT-SIGNATURE", s)
			w.Expect(res, 200, "")
			if res.Text != gate.Goods || w.Facilitator.Transfers() != 1 {
				t.Fatalf("%q, %d transfers", res.Text, w.Facilitator.Transfers())
			}
			// The ledger survived: the payment is used under the new config too.
			res = w.Again(func() gate.Answer {
				return w.Reconnecting(func() gate.Answer { return w.Get("/paid/x", "PAYMENT-SIGNATURE", s) })
			})
			w.Expect(res, 402, "payment_already_used")
			// And the new price is in force.
			w.Until(func() bool {
				res := w.Reconnecting(func() gate.Answer { return w.Get("/paid/x") })
				w.Expect(res, 402, "")
				c, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired))
				return err == nil && c.Accepts[0].Amount == "20000"
			})
		})
	}
}
