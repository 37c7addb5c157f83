package paywall

import (
	"strings"
	"sync"
	"time"
)

const (
	// deadAfter is how many bad gateways in a row make an upstream dead.
	deadAfter = 3
	// probeEvery is how often one request may try a dead upstream.
	probeEvery = 10 * time.Second
	// maxFailures is how many bad gateways are remembered.
	maxFailures = 64
)

// health keeps payers of a price that settles first from paying for a dead upstream.
// The zero value is healthy.
//
// A payer may know what gives a bad gateway. So of the bad gateways of one payer, and of
// those at one path, one counts for all. One request in ten seconds probes a dead
// upstream, and another one from client networks for which it has not failed: who spends
// a cent on each probe does not keep the others out. An answer from it forgets them all.
type health struct {
	mu     sync.Mutex
	bad    int       // bad gateways that share neither payer nor path
	failed []attempt // all of them, the latest last
	probe  time.Time // when the next request may try
	fresh  time.Time // when the next one from another client network may
}

// attempt is what a payer, in a client network, asks of an upstream.
type attempt struct{ payer, path, network string }

// attempt is what the purchase asks of it.
func (p *purchase) attempt() attempt {
	path, _, _ := strings.Cut(p.request.Resource.URL, "?")
	return attempt{p.auth.Payer, path, p.site}
}

// like counts the bad gateways that a request shares something with.
func (h *health) like(a attempt) (payer, path, network int) {
	for _, f := range h.failed {
		if a.payer != "" && f.payer == a.payer {
			payer++
		}
		if f.path == a.path {
			path++
		}
		if f.network == a.network {
			network++
		}
	}
	return payer, path, network
}

// mayTry says whether a request may settle and go on to the upstream. It is dead for all
// when it failed for several payers at several paths, for one when it failed for him,
// and at one path when it failed there.
func (h *health) mayTry(a attempt, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	payer, path, network := h.like(a)
	next := &h.probe
	switch {
	case h.bad < deadAfter && payer < deadAfter && path < deadAfter:
		return true
	case network == 0:
		next = &h.fresh
	}
	if now.Before(*next) {
		return false
	}
	*next = now.Add(probeEvery)
	return true
}

// didNotTry gives a probe back that was not used.
func (h *health) didNotTry() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.probe, h.fresh = time.Time{}, time.Time{}
}

// saw learns from a paid request: its status, 0 if there was none, and whether
// the upstream's handler came to its end.
func (h *health) saw(a attempt, status int, returned bool, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case status == statusClientGone:
	case status >= 502 && status <= 504, status == 0 && !returned:
		payer, path, _ := h.like(a)
		if payer == 0 && path == 0 {
			h.bad++
		}
		if h.failed = append(h.failed, a); len(h.failed) > maxFailures {
			h.failed = h.failed[1:]
		}
		if h.bad >= deadAfter || payer+1 >= deadAfter || path+1 >= deadAfter {
			h.probe = now.Add(probeEvery)
		}
	case status > 0:
		h.bad, h.failed, h.fresh = 0, nil, time.Time{}
	}
}
