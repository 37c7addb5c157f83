package paywall

import (
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// While a facilitator gives no answers, or has nothing to pay the gas with, nobody is
// asked to sign a payment that only it could settle.

// dimmed is an offer without what nobody can settle now.
type dimmed struct {
	of    *offer
	down  string // which backends are down for which options
	offer *offer
}

var errAllDown = errors.New("all facilitators of this price give no answers, or have accounts that cannot pay the gas")

// shown returns what a challenge says: the current offer, or of it what can be
// settled now. If that is nothing, it says how long to wait.
func (t *tariff) shown(current *offer, now time.Time) (o *offer, wait time.Duration, err error) {
	down, wait := t.down(now)
	if down == nil {
		return current, 0, nil
	}
	d := t.dim.Load()
	if d == nil || d.of != current || d.down != string(down) {
		o, err := t.build(func(backend, option int) bool { return down[backend*len(t.options)+option] == 1 })
		if err != nil {
			return nil, wait, err
		}
		d = &dimmed{of: current, down: string(down), offer: o}
		t.dim.Store(d)
	}
	if len(d.offer.requirements) == 0 {
		return nil, wait, errAllDown
	}
	return d.offer, 0, nil
}

// down returns which backends are down for which options, nil if none is, and
// the shortest wait for one of them.
func (t *tariff) down(now time.Time) (down []byte, wait time.Duration) {
	for i, b := range t.backends {
		for j, o := range t.options {
			pause, open := b.Breaker.Open(o.requirement.Network, o.requirement.Scheme, now)
			if !open {
				continue
			}
			if down == nil {
				down, wait = make([]byte, len(t.backends)*len(t.options)), pause
			}
			down[i*len(t.options)+j] = 1
			wait = min(wait, pause)
		}
	}
	return down, wait
}

// outage refuses to ask for money that nobody could take.
func outage(wait time.Duration) refusal {
	return refusal{
		status: http.StatusServiceUnavailable, code: x402.CodeFacilitatorUnavailable,
		retryAfter: seconds(wait),
	}
}

// noteClosed counts a request that found nothing offered, and tells the log, but
// not for each of them.
func (h *Handler) noteClosed(err error, now time.Time) {
	metrics.Closed.Inc()
	last := h.complained.Load()
	if now.Unix()-last < 60 || !h.complained.CompareAndSwap(last, now.Unix()) {
		h.logger.Debug("nothing is offered", zap.Error(err))
		return
	}
	h.logger.Error("nothing is offered, so priced paths answer 503; said once a minute", zap.Error(err))
}
