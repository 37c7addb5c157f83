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
	his   int       // bad gateways of his in a row
	probe time.Time // when the next request may try
}

// mayTry says whether a request of a payer may settle and go on to the upstream. It is
// dead for all when it failed for several payers, and for one when it failed for him.
func (h *health) mayTry(payer string, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bad < deadAfter && (h.his < deadAfter || payer != h.payer) {
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
// the upstream's handler came to its end. Of one payer's in a row one counts for all: he
// may have asked for what gives a bad gateway.
func (h *health) saw(payer string, status int, returned bool, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case status == statusClientGone:
	case status >= 502 && status <= 504, status == 0 && !returned:
		if payer == "" || payer != h.payer {
			h.payer, h.his = payer, 0
			h.bad++
		}
		h.his++
		if h.bad >= deadAfter || h.his >= deadAfter {
			h.probe = now.Add(probeEvery)
		}
	case status > 0:
		h.bad, h.payer, h.his = 0, "", 0
	}
}
