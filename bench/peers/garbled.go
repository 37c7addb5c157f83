package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Bodies that are no yes.
var (
	noVerdicts = []string{
		``, `{}`, `null`, `[]`, `true`, `"true"`, `{"isValid":"true"}`, `{"isValid":1}`, `{"isValid":null}`, `{"valid":true}`,
		`{"isValid":true`, `{"isValid":true}}`, `<html>Welcome</html>`,
	}
	noSettlements = []string{
		``, `{}`, `null`, `[]`, `true`, `{"success":"true"}`, `{"success":1}`, `{"success":true}`,
		`{"success":true,"transaction":"","network":"eip155:84532"}`, `{"success":true,"transaction":"0x","network":"eip155:84532"}`,
		`{"success":true,"transaction":"` + someTransaction + `","network":"eip155:1"}`,
		`{"success":true,"transaction":"` + someTransaction + `","network":"eip155:84532"`, `<html>Welcome</html>`,
	}
)

const someTransaction = "0x1111111111111111111111111111111111111111111111111111111111111111"

// garbledVerify answers /verify with 200 and something that is no yes.
func garbledVerify(w *world) error {
	return w.garbled("/verify", noVerdicts, func(f *facilitator, body *string) { f.verifySays = body },
		func(a account) int { return a.verified })
}

// garbledSettle does the same with /settle.
func garbledSettle(w *world) error {
	return w.garbled("/settle", noSettlements, func(f *facilitator, body *string) { f.settleSays = body },
		func(a account) int { return a.settled })
}

// garbled buys a page for each body, and counts those that were sold.
func (w *world) garbled(what string, bodies []string, set func(*facilitator, *string), asked func(account) int) error {
	goods, met, statuses := 0, 0, map[int]int{}
	for _, body := range bodies {
		w.facilitator.script(func(f *facilitator) { set(f, &body) })
		p, err := newPayer()
		if err != nil {
			return err
		}
		a, err := w.buy(p, http.MethodGet, w.page("/get/"))
		if err != nil {
			return err
		}
		if asked(w.facilitator.of(p)) > 0 {
			met++
		}
		if a.hasGoods() {
			goods++
		}
		statuses[a.StatusCode]++
	}
	scene := fmt.Sprintf("%s answers 200 with %d bodies that are no yes: served", what, len(bodies))
	switch met {
	case 0:
		w.table.add(scene, "not asked")
		return nil
	case len(bodies):
	default:
		return fmt.Errorf("%s met %d bodies of %d", what, met, len(bodies))
	}
	var each []string
	for _, status := range slices.Sorted(maps.Keys(statuses)) {
		each = append(each, fmt.Sprintf("%d × %d", statuses[status], status))
	}
	w.table.add(scene, "%d (%s)", goods, strings.Join(each, ", "))
	return nil
}
