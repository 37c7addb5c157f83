package evm

import (
	"errors"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Codes of the official facilitators for what this package finds out.
const (
	codeScheme          x402.Code = "invalid_exact_evm_scheme"
	codeDomain          x402.Code = "invalid_exact_evm_missing_eip712_domain"
	codeNetwork         x402.Code = "invalid_exact_evm_network_mismatch"
	codeFactory         x402.Code = "eip6492_factory_not_allowed"
	codeAsset           x402.Code = "asset_not_deployed_contract"
	codeNotEIP3009      x402.Code = "invalid_exact_evm_eip3009_not_supported"
	codeTokenName       x402.Code = "invalid_exact_evm_token_name_mismatch"
	codeTokenVersion    x402.Code = "invalid_exact_evm_token_version_mismatch"
	codeBalance         x402.Code = "invalid_exact_evm_insufficient_balance"
	codeSimulation      x402.Code = "invalid_exact_evm_transaction_simulation_failed"
	codeTransaction     x402.Code = "invalid_exact_evm_transaction_failed"
	codeEventMismatch   x402.Code = "invalid_exact_evm_transfer_event_mismatch"
	codeValueMismatchV1 x402.Code = "invalid_exact_evm_authorization_value"

	codePermit2Proxy      x402.Code = "permit2_proxy_not_deployed"
	codePermit2Balance    x402.Code = "permit2_insufficient_balance"
	codePermit2Allowance  x402.Code = "permit2_allowance_required"
	codePermit2Simulation x402.Code = "permit2_simulation_failed"

	codeUptoScheme      x402.Code = "invalid_upto_evm_scheme"
	codeUptoNetwork     x402.Code = "invalid_upto_evm_network_mismatch"
	codeUptoTransaction x402.Code = "invalid_upto_evm_transaction_failed"

	code2612Format   x402.Code = "invalid_eip2612_extension_format"
	code2612From     x402.Code = "eip2612_from_mismatch"
	code2612Asset    x402.Code = "eip2612_asset_mismatch"
	code2612Spender  x402.Code = "eip2612_spender_not_permit2"
	code2612Deadline x402.Code = "eip2612_deadline_expired"
	code2612Amount   x402.Code = "permit2_2612_amount_mismatch"

	codeApprovalFormat    x402.Code = "invalid_erc20_approval_extension_format"
	codeApprovalFrom      x402.Code = "erc20_approval_from_mismatch"
	codeApprovalAsset     x402.Code = "erc20_approval_asset_mismatch"
	codeApprovalSpender   x402.Code = "erc20_approval_spender_not_permit2"
	codeApprovalTarget    x402.Code = "erc20_approval_tx_wrong_target"
	codeApprovalSelector  x402.Code = "erc20_approval_tx_wrong_selector"
	codeApprovalTxSpender x402.Code = "erc20_approval_tx_wrong_spender"
	codeApprovalCalldata  x402.Code = "erc20_approval_tx_invalid_calldata"
	codeApprovalSigner    x402.Code = "erc20_approval_tx_signer_mismatch"
	codeApprovalSignature x402.Code = "erc20_approval_tx_invalid_signature"
	codeApprovalParse     x402.Code = "erc20_approval_tx_parse_failed"
	codeApprovalFailed    x402.Code = "erc20_approval_tx_failed"
	codeApprovalBroadcast x402.Code = "erc20_approval_broadcast_failed"
)

// Codes of our own, for payers whose transactions cost us gas and moved nothing.
const (
	// codeReverts: too many transactions for this payer were reverted lately, or for
	// payers with the same code.
	codeReverts x402.Code = "payer_transactions_revert"
	// codeGasBudget: too many of all such payers were, today.
	codeGasBudget x402.Code = "gas_budget_spent"
	// codeNoWallets: this facilitator takes no payments of payers with code.
	codeNoWallets x402.Code = "contract_wallets_not_accepted"
)

// refuse makes a refusal with a constant cause.
func refuse(c x402.Code, cause string) *x402.Error {
	return &x402.Error{Code: c, Err: errors.New(cause)}
}

// codeOf returns the code of a refusal, in the words of the payment's version.
func codeOf(refused *x402.Error, r facilitator.Request) string {
	if refused.Code == x402.CodeValueMismatch && r.Payment.Version == x402.V1 {
		return string(codeValueMismatchV1)
	}
	return string(refused.Code)
}
