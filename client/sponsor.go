package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strconv"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/x402"
	"github.com/caddy-paywall/caddy-paywall/x402/eip712"
)

// A token moves through Permit2 when its owner has approved that. The approval
// costs gas, but for tokens with EIP-2612 a signature does, if the seller's
// facilitator sends it: eip2612GasSponsoring.

// sponsor makes sure that a Permit2 payment can move, as far as a node tells:
// the token is approved, or the payer signs a permit for exactly the amount,
// which travels with the payment. Without a node nothing is known, and the
// seller has the word.
func (c *Client) sponsor(ctx context.Context, p *Payment) error {
	if !p.Offer.permit2 || c.RPC == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, bound(c.Timeout, DefaultTimeout))
	defer cancel()
	n := node{url: c.RPC, transport: c.transport()}
	var chain hexutil.Uint64
	if err := n.call(ctx, &chain, "eth_chainId"); err != nil {
		return fmt.Errorf("asking the node: %w", err)
	}
	if uint64(chain) != p.Offer.chainID {
		return fmt.Errorf("the node is on chain %d, the offer on chain %d", uint64(chain), p.Offer.chainID)
	}
	owner := p.Permit.From
	allowance, err := n.read(ctx, p.Offer.token, "allowance(address,address)", owner, eip712.Permit2)
	if err != nil {
		return fmt.Errorf("asking the node for the allowance: %w", err)
	}
	if allowance.Cmp(p.Offer.amount.ToBig()) >= 0 {
		return nil
	}
	declared, ok := p.Challenge.declared(x402.EIP2612GasSponsoring)
	if !ok || p.Offer.name == "" || p.Offer.version == "" {
		return unpayable("%s is not approved for Permit2, and the seller offers no way to do it by signature: approve %s on the token first", p.Offer.token.Hex(), eip712.Permit2.Hex())
	}
	nonce, err := n.read(ctx, p.Offer.token, "nonces(address)", owner)
	if err != nil {
		return fmt.Errorf("asking the node for the token's nonce: %w", err)
	}
	// Exactly the amount, and nothing that outlives the payment.
	approval := eip712.Approval{Owner: owner, Spender: eip712.Permit2, Value: p.Offer.amount, Nonce: *uint256.MustFromBig(nonce), Deadline: p.Permit.Deadline}
	signature, err := c.Key.sign(p.Offer.domain().ApprovalDigest(&approval))
	if err != nil {
		return err
	}
	for name, value := range map[string]string{
		"from": owner.Hex(), "asset": p.Offer.token.Hex(), "spender": eip712.Permit2.Hex(), "amount": p.Offer.amount.Dec(),
		"nonce": nonce.String(), "deadline": strconv.FormatUint(p.Permit.Deadline, 10), "signature": hexutil.Encode(signature),
	} {
		if declared.Info[name], err = json.Marshal(value); err != nil {
			return err
		}
	}
	p.sponsored = &declared
	return nil
}

// extension is a declaration of the seller, which the payer repeats with its own
// members in the info.
type extension struct {
	Info   map[string]jsontext.Value `json:"info"`
	Schema jsontext.Value            `json:"schema,omitzero"`
}

// declared finds an extension in the challenge.
func (ch *Challenge) declared(name string) (e extension, ok bool) {
	var all map[string]jsontext.Value
	if json.Unmarshal(ch.extensions, &all) != nil || len(all[name]) == 0 {
		return e, false
	}
	return e, json.Unmarshal(all[name], &e) == nil && e.Info != nil
}

// echo is the extensions that the payment carries: the seller's, with what the
// payer has signed. Short is without what nobody insists on.
func (p *Payment) echo(short bool) (jsontext.Value, error) {
	if p.sponsored == nil {
		if short {
			return nil, nil
		}
		return p.Challenge.extensions, nil
	}
	all := map[string]any{}
	mine := *p.sponsored
	if short {
		mine.Schema = nil
	} else if err := json.Unmarshal(p.Challenge.extensions, &all); err != nil {
		return nil, err
	}
	all[x402.EIP2612GasSponsoring] = mine
	return json.Marshal(all, json.Deterministic(true))
}

// node is a node of a chain that answers JSON-RPC.
type node struct {
	url       string
	transport http.RoundTripper
}

// read calls a function of a contract that takes addresses and returns a number.
func (n node) read(ctx context.Context, contract common.Address, function string, args ...common.Address) (*big.Int, error) {
	data := crypto.Keccak256([]byte(function))[:4]
	for _, a := range args {
		data = append(data, common.LeftPadBytes(a[:], 32)...)
	}
	var out hexutil.Bytes
	err := n.call(ctx, &out, "eth_call", map[string]any{"to": contract, "data": hexutil.Bytes(data)}, "latest")
	if err == nil && len(out) != 32 {
		err = errors.New("the contract has no such function")
	}
	return new(big.Int).SetBytes(out), err
}

func (n node) call(ctx context.Context, result any, method string, params ...any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("its URL cannot be read") // which may hold a key
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := n.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxBodyBytes))
	if err != nil {
		return err
	}
	var answer struct {
		Result jsontext.Value `json:"result"`
		Error  *struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	switch err := json.Unmarshal(raw, &answer); {
	case err != nil:
		return fmt.Errorf("status %d, and no JSON-RPC", resp.StatusCode)
	case answer.Error != nil:
		return fmt.Errorf("%s: %.200q", method, answer.Error.Message)
	}
	return json.Unmarshal(answer.Result, result)
}
