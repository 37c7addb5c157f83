package paywall_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	paywall "github.com/caddy-paywall/caddy-paywall"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/memory"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

func init() {
	caddy.RegisterModule(scriptedModule{})
	caddy.RegisterModule(inProcess{})
	httpcaddyfile.RegisterHandlerDirective("in_process", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		h.Next()
		return inProcess{}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("in_process", httpcaddyfile.Before, "reverse_proxy")
}

// scripted is a ledger in memory that fails when told to. The reconciler sees
// nothing in it unless told otherwise, so that what is decided was decided by
// the request that asked.
type scripted struct {
	*memory.Ledger
	move    atomic.Pointer[func(ledger.Claim, ledger.Change) error]
	listed  atomic.Pointer[func()]
	claim   atomic.Pointer[func()]
	lost    atomic.Bool // every claim, for whoever renews it
	visible atomic.Bool
	rounds  atomic.Int64 // of the reconciler
	claims  atomic.Int64 // how often it was asked to hold a payment
	ahead   atomic.Int64 // of its clock, in nanoseconds
	// elsewhere: what it holds is held by another gateway.
	elsewhere  atomic.Bool
	takePanics atomic.Bool // once
}

// HeldHere is what a ledger has that gateways share.
func (s *scripted) HeldHere(ledger.Key) bool { return !s.elsewhere.Load() }

func (s *scripted) Claim(ctx context.Context, p ledger.Payment, lease time.Duration) (ledger.Claim, error) {
	s.claims.Add(1)
	if f := s.claim.Load(); f != nil {
		(*f)()
	}
	return s.Ledger.Claim(ctx, p, lease)
}

func (s *scripted) Renew(ctx context.Context, c ledger.Claim, lease time.Duration) error {
	if s.lost.Load() {
		return ledger.ErrLost
	}
	return s.Ledger.Renew(ctx, c, lease)
}

func (s *scripted) Move(ctx context.Context, c ledger.Claim, ch ledger.Change) (ledger.Payment, error) {
	if f := s.move.Load(); f != nil {
		if err := (*f)(c, ch); err != nil {
			return ledger.Payment{}, err
		}
	}
	return s.Ledger.Move(ctx, c, ch)
}

func (s *scripted) List(ctx context.Context, f ledger.Filter) iter.Seq2[ledger.Payment, error] {
	if f.Payer == "" { // the reconciler asks for all payers
		s.rounds.Add(1)
	}
	if f.Payer == "" && !s.visible.Load() {
		return func(func(ledger.Payment, error) bool) {}
	}
	then := s.listed.Load()
	if then == nil {
		return s.Ledger.List(ctx, f)
	}
	return func(yield func(ledger.Payment, error) bool) {
		for p, err := range s.Ledger.List(ctx, f) {
			(*then)()
			if !yield(p, err) {
				return
			}
		}
	}
}

// onListed calls f before each row that a request is shown.
func (s *scripted) onListed(f func()) { s.listed.Store(&f) }

// beforeClaim calls f before each claim; nil: no more.
func (s *scripted) beforeClaim(f func()) {
	if f == nil {
		s.claim.Store(nil)
		return
	}
	s.claim.Store(&f)
}

// onMove calls f before each move, which fails with its error; nil: no more.
func (s *scripted) onMove(f func(ledger.Claim, ledger.Change) error) {
	if f == nil {
		s.move.Store(nil)
		return
	}
	s.move.Store(&f)
}

// script is the ledger of the test that runs.
var script atomic.Pointer[scripted]

type scriptedModule struct{ *scripted }

func (scriptedModule) CaddyModule() caddy.ModuleInfo {
	// One name deeper than the others, so that messages that list the ledgers of
	// this build stay as they are.
	return caddy.ModuleInfo{ID: "paywall.ledgers.test.scripted", New: func() caddy.Module { return new(scriptedModule) }}
}

func (m *scriptedModule) Provision(caddy.Context) error {
	m.scripted = script.Load()
	return nil
}

func (*scriptedModule) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

// withScript makes w's next configs use a scripted ledger.
func (w *world) withScript() *scripted {
	s := &scripted{}
	s.Ledger = memory.New(memory.Options{Now: func() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }})
	script.Store(s)
	return s
}

func onScript(caddyfile string) string {
	return strings.Replace(caddyfile, "ledger memory i_accept_loss", "ledger test.scripted", 1)
}

// inProcess is a handler in the same process, which can do what reverse_proxy
// never does.
type inProcess struct{}

var inProcessHandler atomic.Pointer[caddyhttp.HandlerFunc]

func (inProcess) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.in_process", New: func() caddy.Module { return new(inProcess) }}
}

func (inProcess) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	return (*inProcessHandler.Load())(w, r)
}

func onInProcess(h caddyhttp.HandlerFunc) { inProcessHandler.Store(&h) }

// gates are the paywall blocks of the running config.
func gates(t testing.TB) []*paywall.Handler {
	t.Helper()
	found := running()
	if len(found) == 0 {
		t.Fatal("no paywall block is running")
	}
	return found
}

// running are the paywall blocks of the running config, if there is one.
func running() (found []*paywall.Handler) {
	app, err := caddy.ActiveContext().AppIfConfigured("http")
	if err != nil {
		return nil
	}
	var walk func(caddyhttp.RouteList)
	walk = func(routes caddyhttp.RouteList) {
		for _, route := range routes {
			for _, h := range route.Handlers {
				switch h := h.(type) {
				case *paywall.Handler:
					found = append(found, h)
				case *caddyhttp.Subroute:
					walk(h.Routes)
				}
			}
		}
	}
	for _, s := range app.(*caddyhttp.App).Servers {
		walk(s.Routes)
	}
	return found
}

// unsettled is how many payments are, in the running config.
func unsettled() int {
	found := running()
	if len(found) == 0 {
		return 0
	}
	return found[0].ForTest().Settler.Admission.Unsettled.Count()
}

// forgetPayers forgets how all payers and networks fared, whose bounds hold over
// reloads: all tests come from one network.
func forgetPayers() {
	if found := running(); len(found) > 0 {
		found[0].ForTest().Settler.Admission.ForTest().Forget()
	}
}

// setMost sets how many payments may be unsettled: in all, of them for trusted payers
// alone, of one payer, and from one network.
func setMost(t testing.TB, all, kept, of, from int) (restore func()) {
	t.Helper()
	return gates(t)[0].ForTest().Settler.Admission.ForTest().SetMost(all, kept, of, from)
}

// lookAtBlocks makes it time for the next look at all blocks that are watched.
func lookAtBlocks() {
	if found := running(); len(found) > 0 {
		found[0].ForTest().Settler.Blocks.ForTest().LookNow()
	}
}

// clock lets the gates of the running config be ahead of time.
func clock(t *testing.T) (advance func(time.Duration)) {
	t.Helper()
	var ahead atomic.Int64
	for _, g := range gates(t) {
		g.ForTest().Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}
	return func(d time.Duration) { ahead.Add(int64(d)) }
}

// lost settles and loses the answer.
func (f *fakeFacilitator) lost(_ http.ResponseWriter, r *http.Request) {
	f.move(discard{}, f.keep(r))
	panic(http.ErrAbortHandler)
}

// recorder keeps the bodies of /settle.
type recorder struct {
	mu     sync.Mutex
	bodies []string
}

// around answers with h and remembers what was asked.
func (c *recorder) around(f *fakeFacilitator, h http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		body := string(f.keep(r))
		c.mu.Lock()
		c.bodies = append(c.bodies, body)
		c.mu.Unlock()
		h(rw, r)
	}
}

func (c *recorder) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.bodies...)
}

// refusedSettle is a definite no.
var refusedSettle = says(200, `{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}`)

// again sends a payment once more, as soon as the request before it has let go
// of it: the last byte of an answer may arrive before that.
func (w *world) again(send func() answerOf) (res answerOf) {
	w.t.Helper()
	w.until(func() bool {
		res = send()
		return !strings.Contains(res.body, string(x402.CodePaymentInFlight))
	})
	return res
}

// reconnecting sends again while its connection ends without an answer. A reload
// of Caddy closes the old listener, and with it the connections that wait in its
// queue, gate or no gate; whoever meets that connects again.
func (w *world) reconnecting(send func() answerOf) (res answerOf) {
	w.t.Helper()
	w.until(func() bool {
		res = send()
		return !errors.Is(res.err, syscall.ECONNRESET) && !errors.Is(res.err, io.EOF)
	})
	return res
}

var reloads atomic.Int64

// reload runs another Caddyfile and waits until it is the one that answers: the
// servers of the old one end in the background.
func (w *world) reload(caddyfile string) {
	w.t.Helper()
	mark := fmt.Sprint(reloads.Add(1))
	w.load(strings.Replace(caddyfile, "reverse_proxy", "header X-Config "+mark+"\nreverse_proxy", 1))
	w.until(func() bool {
		w.http.CloseIdleConnections()
		res := w.get("/free")
		return res.err == nil && res.Header.Get("X-Config") == mark
	})
}

// serve answers at an address, as a server that has come back does.
func serve(t *testing.T, address string, h http.Handler) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
}
