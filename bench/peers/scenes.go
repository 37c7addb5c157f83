package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// world is what a scene plays in.
type world struct {
	ctx         context.Context
	express     string // the directory of buyer.mjs
	upstream    *upstream
	facilitator *facilitator
	seller      *seller
	table       *table
	pages       int
}

// scenes are played in this order: what leaves doubts behind comes last.
var scenes = []func(*world) error{
	parallel, spellings, preflights, head, stream, broken, refused, restart, garbledVerify, lost, garbledSettle,
}

// page is a new page below a prefix, so that scenes do not meet.
func (w *world) page(prefix string) string {
	w.pages++
	return prefix + strconv.Itoa(w.pages)
}

// buy signs a payment of the payer for the page and sends it.
func (w *world) buy(p payer, method, page string) (answer, error) {
	header, err := p.sign(w.ctx, method, "http://"+w.seller.address+page)
	if err != nil {
		return answer{}, err
	}
	return w.pay(method, page, header)
}

func (w *world) pay(method, page, header string) (answer, error) {
	return send(w.seller.address, method, page, "Payment-Signature", header)
}

// hasGoods says whether an answer carries what is sold.
func (a answer) hasGoods() bool { return a.StatusCode == http.StatusOK && a.body == "goods" }

// parallel sends one payment twenty times at once.
func parallel(w *world) error {
	const block = 2 * time.Second // on Base; a settlement takes one at least
	for _, repeats := range []bool{false, true} {
		w.facilitator.script(func(f *facilitator) { f.repeats, f.takes = repeats, block })
		p, err := newPayer()
		if err != nil {
			return err
		}
		page := w.page("/get/")
		header, err := p.sign(w.ctx, http.MethodGet, "http://"+w.seller.address+page)
		if err != nil {
			return err
		}
		const copies = 20
		answers, errs := make([]answer, copies), make([]error, copies)
		var wg sync.WaitGroup
		for i := range copies {
			wg.Go(func() { answers[i], errs[i] = w.pay(http.MethodGet, page, header) })
		}
		wg.Wait()
		goods := 0
		for i, a := range answers {
			if errs[i] != nil {
				return errs[i]
			}
			if a.hasGoods() {
				goods++
			}
		}
		if repeats {
			w.table.add("… copies served, where the facilitator answers a repeated payment as it did the first time", "%d", goods)
			continue
		}
		w.table.add("one payment, 20 copies at once: upstream starts", "%d", w.upstream.started(page))
		w.table.add("… charged", "%d", w.facilitator.of(p).moved)
		w.table.add("… copies served", "%d", goods)
	}
	return nil
}

// broken lets the upstream answer 500 to a payer, who then pays again.
func broken(w *world) error {
	w.facilitator.script(func(*facilitator) {})
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		p, err := newPayer()
		if err != nil {
			return err
		}
		page := w.page("/any/")
		w.upstream.breaks(page, true)
		first, err := w.buy(p, method, page)
		if err != nil {
			return err
		}
		charged := w.facilitator.of(p).moved
		w.upstream.breaks(page, false)
		second, err := w.buy(p, method, page)
		if err != nil {
			return err
		}
		if !second.hasGoods() {
			return fmt.Errorf("%s: %d, and no goods, after the upstream works again", method, second.StatusCode)
		}
		w.table.add("upstream answers 500 to a paid "+method+": status, charged", "%d, %s", first.StatusCode, times(charged))
		w.table.add("… the payer signs anew and "+method+" works: charged in all", "%s", times(w.facilitator.of(p).moved))
	}
	return nil
}

// refused lets verify say yes, and settle no.
func refused(w *world) error {
	w.facilitator.script(func(f *facilitator) { f.refuse = true })
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		p, err := newPayer()
		if err != nil {
			return err
		}
		page := w.page("/any/")
		a, err := w.buy(p, method, page)
		if err != nil {
			return err
		}
		w.table.add("a "+method+" whose settlement is refused: status, goods, upstream starts", "%d, %s, %d", a.StatusCode, yes(a.hasGoods()), w.upstream.started(page))
	}
	return nil
}

// restart sends a payment that has bought again, after a restart.
func restart(w *world) error {
	for _, repeats := range []bool{false, true} {
		w.facilitator.script(func(f *facilitator) { f.repeats = repeats })
		p, err := newPayer()
		if err != nil {
			return err
		}
		page := w.page("/get/")
		header, err := p.sign(w.ctx, http.MethodGet, "http://"+w.seller.address+page)
		if err != nil {
			return err
		}
		first, err := w.pay(http.MethodGet, page, header)
		if err != nil {
			return err
		}
		if !first.hasGoods() {
			return fmt.Errorf("a good payment buys nothing: %d %s", first.StatusCode, first.body)
		}
		if err := errors.Join(w.seller.stop(), w.seller.start(w.ctx)); err != nil {
			return err
		}
		again, err := w.pay(http.MethodGet, page, header)
		if err != nil {
			return err
		}
		scene := "the same payment after a restart: status, served again"
		if repeats {
			scene = "… where the facilitator answers a repeated payment as it did the first time"
		}
		w.table.add(scene, "%d, %s", again.StatusCode, yes(again.hasGoods()))
	}
	return nil
}

// lost drops the connection on which a settlement would have been answered, and
// lets the official client call until it has what it wants, three times at most.
func lost(w *world) error {
	for _, repeats := range []bool{false, true} {
		w.facilitator.script(func(f *facilitator) { f.repeats, f.lose = repeats, 1 })
		p, err := newPayer()
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(w.ctx, "node", "buyer.mjs", "http://"+w.seller.address+w.page("/get/"), "3")
		cmd.Dir = w.express
		cmd.Env = append(os.Environ(), "PRIVATE_KEY="+p.private)
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("buyer.mjs: %w", err)
		}
		var statuses []int
		if err := json.Unmarshal(said.Bytes(), &statuses); err != nil {
			return err
		}
		scene := "the answer of a settlement is lost, and the official client calls again: statuses, charged"
		if repeats {
			scene = "… where the facilitator answers the settlement when it is repeated"
		}
		w.table.add(scene, "%s, %s", strings.Trim(strings.Join(strings.Fields(fmt.Sprint(statuses)), " "), "[]"), times(w.facilitator.of(p).moved))
	}
	return nil
}

func times(n int) string {
	switch n {
	case 0:
		return "not charged"
	case 1:
		return "once"
	case 2:
		return "twice"
	default:
		return fmt.Sprintf("%d times", n)
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
