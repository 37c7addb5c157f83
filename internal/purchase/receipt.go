package purchase

import (
	"net/http"

	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// receipt tells what became of a settled payment.
func (p *Purchase) receipt(row ledger.Payment) *x402.Receipt {
	receipt := &x402.Receipt{
		Success:     true,
		Transaction: row.Transaction,
		Network:     row.Network,
		Payer:       row.Payer,
		Extensions:  p.result.settlement.Extensions,
		Extra:       p.result.settlement.Extra,
	}
	if row.Scheme == x402.SchemeUpto {
		receipt.Amount = row.Amount // else it is the price
	}
	return receipt
}

// pendingReceipt tells that the money may have moved, and that the same payment
// is worth sending again.
func (p *Purchase) pendingReceipt(row ledger.Payment) *x402.Receipt {
	r := failedReceipt(row, x402.CodeSettlementPending)
	return &r
}

func failedReceipt(row ledger.Payment, code x402.Code) x402.Receipt {
	return x402.Receipt{
		Transaction: row.Transaction,
		Network:     row.Network,
		Payer:       row.Payer,
		ErrorReason: string(code),
	}
}

// setReceipt puts the receipt of a settled payment on the paid answer, as the payer reads it.
func (p *Purchase) setReceipt(header http.Header) {
	delivery.RemoveReceipts(header)
	p.signed.said.Receipt(header, p.receipt(p.hold.Payment))
}
