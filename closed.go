package paywall

import (
	"time"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
)

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
