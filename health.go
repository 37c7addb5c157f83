package paywall

import (
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// deadAfter is how many bad gateways in a row make an upstream dead.
	deadAfter = 3
	// probeEvery is how often one request may try a dead upstream.
	probeEvery = 10 * time.Second
	// trustedEvery is how often one may whose payer has paid before.
	trustedEvery = time.Second
	// maxFailures is how many bad gateways are remembered, and how many probes.
	maxFailures = 64
)

// health keeps payers of a price that settles first from paying for a dead upstream.
// The zero value is healthy.
//
// A payer may know what gives a bad gateway. So of the bad gateways of one payer, and of
// those at one path, one counts for all. One request in ten seconds probes a dead
// upstream, another one from client networks for which it has not failed, and others of
// payers who have paid before. Who has taken a probe takes only the first kind until
// somebody gets an answer, however his ended: who spends a cent on each, waits for
// nothing, or does not pay in the end does not keep the others out. An answer from the
// upstream forgets them all.
type health struct {
	mu     sync.Mutex
	bad    int       // bad gateways that share neither payer nor path
	failed []attempt // all of them, the latest last
	probed []attempt // who has tried since it is dead, the latest last
	probe  time.Time // when the next request may try
	fresh  time.Time // when the next one from another client network may
	known  time.Time // when the next one of another payer may who has paid before
}

// attempt is what a payer, in a client network, asks of an upstream.
type attempt struct {
	payer, path, network string
	trusted              bool // the payer has paid before
}

// attempt is what the purchase asks of it.
func (p *purchase) attempt() attempt {
	path, _, _ := strings.Cut(p.request.Resource.URL, "?")
	return attempt{p.auth.Payer, path, p.site, p.isTrusted(p.h.now())}
}

// like counts the bad gateways that a request shares something with.
func (h *health) like(a attempt) (payer, path int) {
	for _, f := range h.failed {
		if a.payer != "" && f.payer == a.payer {
			payer++
		}
		if f.path == a.path {
			path++
		}
	}
	return payer, path
}

// sawOf says whether somebody like this has got a bad gateway, or taken a probe.
func (h *health) sawOf(is func(attempt) bool) bool {
	return slices.ContainsFunc(h.failed, is) || slices.ContainsFunc(h.probed, is)
}

// mayTry says whether a request may settle and go on to the upstream. It is dead for all
// when it failed for several payers at several paths, for one when it failed for him,
// and at one path when it failed there.
func (h *health) mayTry(a attempt, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	payer, path := h.like(a)
	next, pause := &h.probe, probeEvery
	switch {
	case h.bad < deadAfter && payer < deadAfter && path < deadAfter:
		return true
	case !h.sawOf(func(o attempt) bool { return o.network == a.network }) && !now.Before(h.fresh):
		next = &h.fresh
	case a.trusted && !h.sawOf(func(o attempt) bool { return o.payer == a.payer }):
		next, pause = &h.known, trustedEvery
	}
	if now.Before(*next) {
		return false
	}
	*next = now.Add(pause)
	h.probed = remembered(h.probed, a)
	return true
}

func remembered(list []attempt, a attempt) []attempt {
	if list = append(list, a); len(list) > maxFailures {
		list = list[1:]
	}
	return list
}

// didNotTry gives a probe back that was not used.
func (h *health) didNotTry() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.probe, h.fresh, h.known = time.Time{}, time.Time{}, time.Time{}
}

// saw learns from a paid request: its status, 0 if there was none, and whether
// the upstream's handler came to its end.
func (h *health) saw(a attempt, status int, returned bool, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case status == statusClientGone:
	case status >= 502 && status <= 504, status == 0 && !returned:
		payer, path := h.like(a)
		if payer == 0 && path == 0 {
			h.bad++
		}
		h.failed = remembered(h.failed, a)
		if h.bad >= deadAfter || payer+1 >= deadAfter || path+1 >= deadAfter {
			h.probe = now.Add(probeEvery)
		}
	case status > 0:
		h.bad, h.failed, h.probed = 0, nil, nil
		h.fresh, h.known = time.Time{}, time.Time{}
	}
}
