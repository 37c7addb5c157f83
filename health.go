package paywall

import (
	"sync"
	"time"
)

const (
	// deadAfter is how many bad gateways in a row make an upstream dead.
	deadAfter = 3
	// probeEvery is how often one request may try a dead upstream.
	probeEvery = 10 * time.Second
)

// health keeps payers of a price that settles first from paying for a dead
// upstream. The zero value is healthy.
type health struct {
	mu    sync.Mutex
	bad   int
	payer string    // of the latest bad gateway
	probe time.Time // when the next request may try
}

// mayTry says whether a request may settle and go on to the upstream.
func (h *health) mayTry(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bad < deadAfter {
		return true
	}
	if now.Before(h.probe) {
		return false
	}
	h.probe = now.Add(probeEvery)
	return true
}

// didNotTry gives a probe back that was not used.
func (h *health) didNotTry() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.probe = time.Time{}
}

// saw learns from a paid request: its status, 0 if there was none, and whether
// the upstream's handler came to its end. Of one payer's in a row one counts: he may
// have asked for what gives a bad gateway.
func (h *health) saw(payer string, status int, returned bool, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case status == statusClientGone:
	case status >= 502 && status <= 504, status == 0 && !returned:
		switch {
		case h.bad >= deadAfter: // it was a probe
			h.probe = now.Add(probeEvery)
		case payer == "" || payer != h.payer:
			h.payer = payer
			if h.bad++; h.bad == deadAfter {
				h.probe = now.Add(probeEvery)
			}
		}
	case status > 0:
		h.bad, h.payer = 0, ""
	}
}
