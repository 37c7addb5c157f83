package purchase

import (
	"net/http"

	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/pricing/money"
)

// report writes the one log line of a payment, and counts it.
func (p *Purchase) report() {
	outcome := p.result.outcome
	if outcome == "" {
		return
	}
	metrics.CountPayment(outcome)
	row := p.hold.Payment
	if p.result.about != nil {
		row = *p.result.about
	}
	fields := []zap.Field{
		zap.String("outcome", string(outcome)),
		zap.String("payment", row.ID),
		zap.String("payer", row.Payer),
		zap.String("network", row.Network),
		zap.String("asset", row.Asset),
		zap.String("amount", row.Amount),
		zap.String("facilitator", row.Facilitator),
		zap.String("transaction", row.Transaction),
		zap.String("method", row.Method),
		zap.String("host", row.Host),
		zap.Int("upstream_status", p.result.status),
		zap.Duration("duration", p.desk.Now().Sub(p.ask.Started)),
	}
	level := zap.InfoLevel
	if f := p.result.refused; f != nil {
		fields = append(fields, zap.Int("status", f.Status), zap.String("code", string(f.Code)), zap.Error(f.cause))
		if f.Status >= http.StatusInternalServerError {
			level = zap.ErrorLevel
		}
	}
	logger := p.desk.Logger
	switch outcome {
	case metrics.Limited:
		level = zap.DebugLevel // a flood must not fill the log
	case metrics.Rejected, metrics.Invalid, metrics.Unverified, metrics.Expired:
		logger = p.desk.Sampled // anybody can send what costs him nothing
	}
	logger.Log(level, "payment", fields...)
}

// Arrived says, after Close, whether the payer has the goods.
func (p *Purchase) Arrived() bool { return p.result.arrived }

// Earned is, after Close, what the payer has paid with this request, as a decimal in whole
// tokens, and the token's symbol, "" for one that is pegged to the dollar. paid is false if no
// money moved while the request lasted.
func (p *Purchase) Earned() (amount, symbol string, paid bool) {
	option := p.signed.option
	if !p.result.settled || p.result.redeemed || option == nil {
		return "", "", false
	}
	if !option.PegUSD {
		symbol = option.Symbol
	}
	return money.FormatAtomic(p.hold.Payment.Amount, option.Decimals), symbol, true
}
