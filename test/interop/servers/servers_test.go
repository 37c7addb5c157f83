//go:build servers

package servers

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// clients send at once.
	clients = 8
	// openEvery is how many random requests go to the gate for one that goes to the
	// open site too, to see what the others would have got.
	openEvery = 4
	// openAtLeast is the least share of random requests, in percent, that an open site must answer
	// with goods: else the mutator has lost its way, and finds nothing.
	openAtLeast = 10
	// shown is how many different holes of the random requests are reported.
	shown = 40
)

// TestRealServersServeNothingUnpaid puts each server behind the gate and asks it
// for its goods, unpaid: in all known ways, and in random ones. The same requests
// get goods where there is no gate, or they would prove nothing.
func TestRealServersServeNothingUnpaid(t *testing.T) {
	requests, seed := number(t, "SERVERS_REQUESTS", 40_000), uint64(number(t, "SERVERS_SEED", 1))
	gates := startCaddy(t, startServers(t))
	useless := map[string]bool{} // tricks that get no goods anywhere, gate or not
	for n, g := range gates {
		t.Run(g.name, func(t *testing.T) {
			g.isHonest(t)

			directed := tricks(g.goods)
			asked := make([]request, len(directed))
			for i, trick := range directed {
				asked[i] = trick.request
			}
			served := g.ask(t, g.open, "open-directed", asked)
			t.Logf("directed: %d of %d get goods from the open site", len(served), len(asked))
			for i, trick := range directed {
				if _, worked := served[i]; worked {
					useless[trick.name] = false
				} else if _, known := useless[trick.name]; !known {
					useless[trick.name] = true
				}
			}
			g.reportTricks(t, directed, g.ask(t, g.gated, "directed", asked))

			asked = make([]request, requests/len(gates))
			for i := range asked {
				asked[i] = newMutator(seed, uint64(n*requests+i), g.goods).request()
			}
			sample := asked[:max(1, len(asked)/openEvery)]
			served = g.ask(t, g.open, "open-random", sample)
			t.Logf("random: %d of %d get goods from the open site, %d %%", len(served), len(sample), 100*len(served)/len(sample))
			if 100*len(served) < openAtLeast*len(sample) {
				t.Errorf("the mutator finds too few goods where there is no gate")
			}
			g.reportRandom(t, asked, g.ask(t, g.gated, "random", asked))

			g.isHonest(t)
		})
	}
	maps.DeleteFunc(useless, func(_ string, is bool) bool { return !is })
	t.Logf("tricks that work nowhere, even without the gate: %q", slices.Sorted(maps.Keys(useless)))
}

func number(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		t.Fatalf("%s=%s: want a number", variable, text)
	}
	return n
}

// isHonest makes sure that the site gives its goods, and that the gate asks for
// money for these and for nothing else.
func (g *gate) isHonest(t *testing.T) {
	t.Helper()
	for _, good := range g.goods {
		r := plain(good)
		if a := send(g.open, r.bytes("honest"), patience); !bytes.Contains(a, []byte(marker)) {
			t.Errorf("%s gets no goods from the open site:\n%s", r, a)
		}
		if a := send(g.gated, r.bytes("honest"), patience); !bytes.HasPrefix(a, []byte("HTTP/1.1 402 ")) {
			t.Errorf("%s is not for sale:\n%s", r, head(a))
		}
	}
	for _, path := range free {
		r := plain(good{"GET", path, ""})
		if a := send(g.gated, r.bytes("free"), patience); !bytes.HasPrefix(a, []byte("HTTP/1.1 200 ")) || bytes.Contains(a, []byte(marker)) {
			t.Errorf("%s is not free:\n%s", r, a)
		}
	}
}

// hole is what an unpaid request got.
type hole struct {
	answer []byte
	action string // what it made the site do
}

func (h hole) String() string {
	if h.action != "" {
		return fmt.Sprintf("the site did %q, and answered:\n%s", h.action, head(h.answer))
	}
	_, goods, _ := bytes.Cut(h.answer, []byte(marker))
	name, _, _ := strings.Cut(string(goods), " ")
	return fmt.Sprintf("the answer has %s%.20s:\n%s", marker, name, head(h.answer))
}

// ask sends requests to an address of the site, and returns those that got goods
// or made it act, by index.
func (g *gate) ask(t *testing.T, address, phase string, requests []request) map[int]hole {
	t.Helper()
	var (
		wait   sync.WaitGroup
		next   atomic.Int64
		mu     sync.Mutex
		holes  = map[int]hole{}
		status = map[string]int{}
		began  = time.Now()
		before = g.acted(t)
	)
	answers := make([][]byte, len(requests))
	for range clients {
		wait.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(requests) {
					return
				}
				a := send(address, requests[i].bytes(fmt.Sprintf("%s-%d", phase, i)), requests[i].wait())
				answers[i] = []byte(head(a))
				mu.Lock()
				status[statusOf(a)]++
				if bytes.Contains(a, []byte(marker)) {
					holes[i] = hole{answer: a}
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	for probe, action := range g.settled(t) {
		if at, ok := strings.CutPrefix(probe, phase+"-"); ok {
			i, _ := strconv.Atoi(at)
			holes[i] = hole{answer: answers[i], action: action}
		}
	}
	if after := g.acted(t); after["unknown"] != before["unknown"] && address == g.gated {
		t.Errorf("%s: a request that lost its X-Probe made the site act", phase)
	}
	t.Logf("%s: %d requests in %s: %v", phase, len(requests), time.Since(began).Round(time.Millisecond), status)
	return holes
}

// settled are the site's actions when what was sent has had its time: who hangs
// up early may be obeyed late.
func (g *gate) settled(t *testing.T) map[string]string {
	t.Helper()
	time.Sleep(300 * time.Millisecond)
	return g.acted(t)
}

func statusOf(answer []byte) string {
	if fields := bytes.Fields(answer[:min(len(answer), 20)]); len(fields) > 1 {
		return string(fields[1])
	}
	return "none"
}

// reportTricks reports each trick that worked at the gate, with one of its requests.
func (g *gate) reportTricks(t *testing.T, tricks []trick, holes map[int]hole) {
	t.Helper()
	seen := map[string]int{}
	for _, i := range slices.Sorted(maps.Keys(holes)) {
		name := tricks[i].name
		if seen[name]++; seen[name] == 1 {
			t.Errorf("HOLE by the trick %q: %s\n%s", name, tricks[i], holes[i])
		}
	}
	if len(seen) > 0 {
		t.Errorf("directed: %d of %d unpaid requests got goods, by %d tricks: %v", len(holes), len(tricks), len(seen), seen)
	}
}

// reportRandom reports random requests that worked at the gate, without what they
// did not need. Those that come down to the same are reported once.
func (g *gate) reportRandom(t *testing.T, requests []request, holes map[int]hole) {
	t.Helper()
	if len(holes) > 0 {
		t.Errorf("random: %d of %d unpaid requests got goods", len(holes), len(requests))
	}
	seen := map[string]bool{}
	for n, i := range slices.Sorted(maps.Keys(holes)) {
		if n == 3*shown || len(seen) == shown {
			t.Log("random: the other holes are not looked at")
			return
		}
		r := g.smaller(t, requests[i])
		if !seen[r.String()] {
			seen[r.String()] = true
			t.Errorf("HOLE %s\nfrom %s\n%s", r, requests[i], holes[i])
		}
	}
}

// smaller takes away from a request what is not needed to get goods unpaid.
func (g *gate) smaller(t *testing.T, r request) request {
	t.Helper()
	try := func(change func(*request)) bool {
		changed := r
		changed.headers = slices.Clone(r.headers)
		if change(&changed); changed.String() == r.String() || !g.leaks(t, changed) {
			return false
		}
		r = changed
		return true
	}
	try(func(r *request) { r.headers, r.body = nil, "" })
	for i := len(r.headers) - 1; i >= 0; i-- {
		try(func(r *request) { r.headers = slices.Delete(r.headers, i, i+1) })
	}
	try(func(r *request) { r.body, r.headers = "", dropHeader(r.headers, "Content-Length") })
	try(func(r *request) { r.version = "HTTP/1.1" })
	try(func(r *request) { r.host = "site.test" })
	try(func(r *request) { r.method = "GET" })
	for i := len(r.target) - 1; i >= 0; i-- {
		try(func(r *request) { r.target = r.target[:i] + r.target[i+1:] })
	}
	return r
}

// probes counts the requests that are sent one by one.
var probes atomic.Int64

// leaks says whether a request gets goods unpaid.
func (g *gate) leaks(t *testing.T, r request) bool {
	t.Helper()
	probe := fmt.Sprintf("one-%d", probes.Add(1))
	if bytes.Contains(send(g.gated, r.bytes(probe), r.wait()), []byte(marker)) {
		return true
	}
	time.Sleep(20 * time.Millisecond)
	return g.acted(t)[probe] != ""
}
