package remote

import (
	"slices"
	"strings"
	"testing"
)

// leaveOpen are the published codes after which money may have moved. All other
// published codes prove that nothing has: a code that a new version adds has to
// be put on one side.
var leaveOpen = []string{
	"duplicate_settlement",
	"erc20_approval_broadcast_failed",
	"erc20_approval_tx_failed",
	"invalid_batch_settlement_evm_channel_busy",
	"invalid_batch_settlement_evm_claim_transaction_failed",
	"invalid_batch_settlement_evm_deposit_transaction_failed",
	"invalid_batch_settlement_evm_erc20_approval_unavailable",
	"invalid_batch_settlement_evm_refund_transaction_failed",
	"invalid_batch_settlement_evm_rpc_read_failed",
	"invalid_batch_settlement_evm_settle_transaction_failed",
	"invalid_batch_settlement_evm_smart_wallet_deployment_failed",
	"invalid_batch_settlement_evm_verification_state_unavailable",
	"invalid_exact_evm_nonce_already_used",
	"invalid_exact_evm_transaction_failed",
	"invalid_exact_evm_transfer_event_mismatch",
	"invalid_exact_svm_smart_wallet_alt_resolution_failed",
	"invalid_exact_svm_transaction_failed",
	"invalid_permit2_nonce",
	"invalid_transaction_state",
	"invalid_upto_evm_transaction_failed",
	"invalid_upto_svm_channel_already_open",
	"invalid_upto_svm_channel_broadcast",
	"invalid_upto_svm_channel_state",
	"invalid_upto_svm_payload_nonce",
	"invalid_upto_svm_payload_unexpected_voucher",
	"permit2_invalid_nonce",
	"post_settlement_transfer_not_confirmed",
	"settle_exact_svm_block_height_exceeded",
	"settle_exact_svm_transaction_confirmation_timed_out",
	"settlement_pending",
	"smart_wallet_deployment_failed",
	"unexpected_settle_error",
	"unexpected_verify_error",
}

func TestNothingMovedForPublishedCodes(t *testing.T) {
	var data struct{ Codes map[string][]string }
	vectors(t, "data-error-codes.json", &data)
	families := []string{"exact_evm", "upto_evm", "batch_settlement_evm", "exact_svm", "upto_svm", "v1_enum"}
	for _, family := range families {
		if len(data.Codes[family]) == 0 {
			t.Fatalf("no codes of %s", family)
		}
		for _, code := range data.Codes[family] {
			if got, want := nothingMoved(code, ""), !slices.Contains(leaveOpen, code); got != want {
				t.Errorf("nothingMoved(%s) = %t, want %t", code, got, want)
			}
		}
	}
}

func TestNothingMoved(t *testing.T) {
	for reason, want := range map[string]bool{
		// Proofs.
		"x":                              true, // some facilitators number their reasons
		"insufficient_funds":             true,
		"insufficientFunds":              true,
		"INSUFFICIENT_FUNDS":             true,
		"insufficient funds":             true,
		"invalid-signature":              true,
		"payment_expired":                true,
		"payer_sanctioned_kyt":           true,
		"simulation_failed":              true,
		"transaction simulation failed":  true,
		"signature verification failed":  true,
		"failed to parse the signature":  true,
		"permit2_deadline_expired":       true,
		"invalid_x402_version":           true,
		"amount_below_minimum":           true,
		"asset not supported":            true,
		"invalid_exact_evm_payload_type": true,

		// Nothing to read.
		"":         false,
		"  ":       false,
		"-":        false,
		"400":      false,
		"unknown":  false,
		"Unknown.": false,
		"none":     false,
		"null":     false,
		"交易已提交":    false, // "transaction submitted"
		"транзакция отправлена":   false,
		"insufficient fund\u0455": false, // a Cyrillic letter among them
		strings.Repeat("a", 501):  false,

		// Used.
		"nonce_used":                      false,
		"nonceAlreadyUsed":                false,
		"NONCE-TOO-LOW":                   false,
		"authorization is used":           false,
		"authorization_used_or_cancelled": false,
		"authorization canceled":          false,
		"already known":                   false,
		"already_settled":                 false,
		"alreadyPaid":                     false,
		"duplicate":                       false,
		"duplicated request":              false,
		"replayed":                        false,
		"payment_exists":                  false,
		"payment consumed":                false,
		"tx_seen_before":                  false,

		// Under way.
		"pending":                             false,
		"tx_pending":                          false,
		"PENDING_CONFIRMATION":                false,
		"broadcast":                           false,
		"broadcasted":                         false,
		"transaction_submitted":               false,
		"sent_not_confirmed":                  false,
		"waiting_for_confirmations":           false,
		"in_progress":                         false,
		"in-flight":                           false,
		"processing":                          false,
		"queued":                              false,
		"receipt not found":                   false,
		"replacement transaction underpriced": false,
		"dropped from mempool":                false,
		"blockhash not found":                 false,
		"block height exceeded":               false,
		"not_finalized":                       false,

		// Sent, and it did not end well.
		"reverted":                          false,
		"execution_reverted":                false,
		"transaction reverted":              false,
		"tx_failed":                         false,
		"failed_onchain":                    false,
		"settle_exact_failed_onchain":       false,
		"settlement_failed":                 false,
		"failure":                           false,
		"transfer_failed":                   false,
		"simulation_failed_after_broadcast": false,

		// They do not know.
		"error":                     false,
		"internal_error":            false,
		"InternalServerError":       false,
		"internal":                  false,
		"unexpected":                false,
		"unknown_error":             false,
		"timeout":                   false,
		"time_out":                  false,
		"timed out":                 false,
		"timedOut":                  false,
		"Time-Out":                  false,
		"context deadline exceeded": false,
		"connection_refused":        false,
		"ECONNRESET":                false,
		"socket hang up":            false,
		"rpc_unreachable":           false,
		"settle_exact_node_failure": false,
		"rate_limited":              false,
		"rateLimitExceeded":         false,
		"too_many_requests":         false,
		"service unavailable":       false,
		"bad gateway":               false,
		"try_again_later":           false,
		"request aborted":           false,
	} {
		if got := nothingMoved(reason, ""); got != want {
			t.Errorf("nothingMoved(%q) = %t, want %t", reason, got, want)
		}
	}
}

func TestNothingMovedReadsTheMessage(t *testing.T) {
	for message, want := range map[string]bool{
		"":                     true,
		"Insufficient balance": true,
		"execution reverted: ERC20: transfer amount exceeds balance": true,
		"余额不足": true, // prose in any script says nothing against the code
		"FiatTokenV2: authorization is used or canceled": false,
		"nonce too low":                         false,
		"transaction was already submitted":     false,
		"still pending":                         false,
		"timed out while waiting for a receipt": false,
		"already known":                         false,
	} {
		if got := nothingMoved("invalid_payload", message); got != want {
			t.Errorf("message %q: %t, want %t", message, got, want)
		}
	}
}
