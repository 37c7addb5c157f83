package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/model"
)

// What spellings are made of.
const (
	report   = "/shop/report" // priced by name
	prefixed = "/any/report"  // priced by /any/*
	spelled  = 400            // spellings of each
)

// spellings asks for priced paths without a payment, in many spellings, and
// counts those that reach an upstream that would serve the goods.
func spellings(w *world) error {
	would, got := map[string]int{}, map[string]int{}
	total, anyWould, anyGot := 0, 0, 0
	for _, path := range []string{report, prefixed} {
		for _, target := range model.Spellings(path, spelled) {
			total++
			bare, err := send(w.upstream.Addr().String(), http.MethodGet, target)
			if err != nil {
				return err
			}
			gated, err := send(w.seller.address, http.MethodGet, target)
			if err != nil {
				return err
			}
			if count(would, bare) {
				anyWould++
			}
			if count(got, gated) {
				anyGot++
			}
		}
	}
	scene := fmt.Sprintf("unpaid, in %d spellings of two priced paths, served by an upstream that", total)
	for _, m := range models {
		if would[m.Name] == 0 {
			return fmt.Errorf("no spelling is served by the model %q", m.Name)
		}
		reads := m.Name
		if reads == "plain" {
			reads = "decodes once"
		}
		w.table.add(fmt.Sprintf("%s %s (%s); %d without a gate", scene, reads, m.Like, would[m.Name]), "%d", got[m.Name])
		scene = "…"
	}
	w.table.add(fmt.Sprintf("… by any of these; %d without a gate", anyWould), "%d", anyGot)
	return nil
}

// count counts the models that would serve the goods, and says whether any would.
func count(by map[string]int, a answer) bool {
	serve := a.Header.Get("X-Serve")
	if a.StatusCode != http.StatusOK || serve == "" {
		return false
	}
	for name := range strings.SplitSeq(serve, ",") {
		by[name]++
	}
	return true
}

// preflights asks as browsers do before they send a payment from another origin.
func preflights(w *world) error {
	for _, path := range []struct{ prefix, priced string }{{"/get/", "for GET"}, {"/any/", "for every method"}} {
		a, err := send(w.seller.address, http.MethodOptions, w.page(path.prefix),
			"Origin", "https://app.example", "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "payment-signature")
		if err != nil {
			return err
		}
		may := "a browser goes on"
		if a.StatusCode/100 != 2 || a.Header.Get("Access-Control-Allow-Origin") == "" {
			may = "a browser stops"
		}
		w.table.add("CORS preflight of a path priced "+path.priced, "%d, %s", a.StatusCode, may)
	}
	a, err := send(w.seller.address, http.MethodGet, w.page("/get/"), "Origin", "https://app.example")
	if err != nil {
		return err
	}
	exposed := strings.ToLower(a.Header.Get("Access-Control-Expose-Headers"))
	readable := a.Header.Get("Access-Control-Allow-Origin") != "" && (strings.Contains(exposed, "payment-required") || exposed == "*")
	w.table.add("a browser's script on another origin can read the challenge", "%s", yes(readable))
	return nil
}

// head asks for the head of what is sold.
func head(w *world) error {
	for _, path := range []struct{ prefix, priced string }{{"/get/", "for GET"}, {"/any/", "for every method"}} {
		page := w.page(path.prefix)
		a, err := send(w.seller.address, http.MethodHead, page)
		if err != nil {
			return err
		}
		w.table.add("unpaid HEAD of a path priced "+path.priced+": status, upstream starts", "%d, %d", a.StatusCode, w.upstream.started(page))
	}
	return nil
}

// stream buys an event stream, and looks whether its first event comes before its
// end.
func stream(w *world) error {
	w.facilitator.script(func(*facilitator) {})
	p, err := newPayer()
	if err != nil {
		return err
	}
	page := w.page("/get/") + "/stream"
	header, err := p.sign(w.ctx, http.MethodGet, "http://"+w.seller.address+page)
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", w.seller.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	res, err := ask(conn, http.MethodGet, page, "Payment-Signature", header)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	if res.StatusCode != http.StatusOK || !lines.Scan() || lines.Text() != strings.TrimSpace(event) {
		return fmt.Errorf("a paid stream: %d %q", res.StatusCode, lines.Text())
	}
	// The upstream waits for this, and ends the stream without it after a while.
	select {
	case w.upstream.seen <- struct{}{}:
	case <-time.After(time.Second):
	}
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		return err
	}
	w.table.add("the first event of a paid stream arrives before the upstream has ended it", "%s", yes(w.upstream.inTime()))
	return nil
}
