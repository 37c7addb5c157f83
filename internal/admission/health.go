package admission

import (
	"slices"
	"sync"
	"time"
)

const (
	// deadAfter is how many bad gateways in a row make an upstream dead.
	deadAfter = 3
	// ProbeEvery is how often one request may try a dead upstream.
	ProbeEvery = 10 * time.Second
	// trustedEvery is how often one may whose payer has paid before.
	trustedEvery = time.Second
	// maxFailures is how many bad gateways are remembered, and how many probes.
	maxFailures = 64
)

// Health is the passive health of an upstream. It keeps payers of a price that settles first from paying for a dead upstream.
// The zero value is healthy.
//
// A payer may know what gives a bad gateway. So of the bad gateways of one payer, and of
// those at one path, one counts for all. One request in ten seconds probes a dead
// upstream, another one from client networks for which it has not failed, and others of
// payers who have paid before. Who has taken a probe takes only the first kind until
// somebody gets an answer, however his ended: who spends a cent on each, waits for
// nothing, or does not pay in the end does not keep the others out. An answer from the
// upstream forgets them all.
type Health struct {
	mu     sync.Mutex
	bad    int       // bad gateways that share neither payer nor path
	failed []Attempt // all of them, the latest last
	probed []Attempt // who has tried since it is dead, the latest last
	probe  time.Time // when the next request may try
	fresh  time.Time // when the next one from another client network may
	known  time.Time // when the next one of another payer may who has paid before
}

// Attempt is what a payer, in a client network, asks of an upstream.
type Attempt struct {
	Payer, Path, Network string
	Trusted              bool // the payer has paid before
}

// like counts the bad gateways that a request shares something with.
func (h *Health) like(a Attempt) (payer, path int) {
	for _, f := range h.failed {
		if a.Payer != "" && f.Payer == a.Payer {
			payer++
		}
		if f.Path == a.Path {
			path++
		}
	}
	return payer, path
}

// sawOf says whether somebody like this has got a bad gateway, or taken a probe.
func (h *Health) sawOf(is func(Attempt) bool) bool {
	return slices.ContainsFunc(h.failed, is) || slices.ContainsFunc(h.probed, is)
}

// MayTry says whether a request may settle and go on to the upstream. It is dead for all
// when it failed for several payers at several paths, for one when it failed for him,
// and at one path when it failed there.
func (h *Health) MayTry(a Attempt, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	payer, path := h.like(a)
	next, pause := &h.probe, ProbeEvery
	switch {
	case h.bad < deadAfter && payer < deadAfter && path < deadAfter:
		return true
	case !h.sawOf(func(o Attempt) bool { return o.Network == a.Network }) && !now.Before(h.fresh):
		next = &h.fresh
	case a.Trusted && !h.sawOf(func(o Attempt) bool { return o.Payer == a.Payer }):
		next, pause = &h.known, trustedEvery
	}
	if now.Before(*next) {
		return false
	}
	*next = now.Add(pause)
	h.probed = remembered(h.probed, a)
	return true
}

func remembered(list []Attempt, a Attempt) []Attempt {
	if list = append(list, a); len(list) > maxFailures {
		list = list[1:]
	}
	return list
}

// DidNotTry gives a probe back that was not used.
func (h *Health) DidNotTry() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.probe, h.fresh, h.known = time.Time{}, time.Time{}, time.Time{}
}

// ClientGone is the status of a request whose client has left, as Caddy logs it.
const ClientGone = 499

// Saw learns from a paid request: its status, 0 if there was none, and whether
// the upstream's handler came to its end.
func (h *Health) Saw(a Attempt, status int, returned bool, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case status == ClientGone:
	case status >= 502 && status <= 504, status == 0 && !returned:
		payer, path := h.like(a)
		if payer == 0 && path == 0 {
			h.bad++
		}
		h.failed = remembered(h.failed, a)
		if h.bad >= deadAfter || payer+1 >= deadAfter || path+1 >= deadAfter {
			h.probe = now.Add(ProbeEvery)
		}
	case status > 0:
		h.bad, h.failed, h.probed = 0, nil, nil
		h.fresh, h.known = time.Time{}, time.Time{}
	}
}
