package devfacilitator

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-paywall/caddy-paywall/devchain"
	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm"
)

// settler is who does the work: the same facilitator that settles on real chains.
type settler interface {
	facilitator.Facilitator
	facilitator.Chains
	caddy.CleanerUpper
}

// network is the chain's CAIP-2 id.
var network = fmt.Sprintf("eip155:%d", devchain.ChainID)

// newSettler makes a facilitator that settles on a chain, with the chain's first
// account for the gas.
//
// The facilitator takes keys from files only. This one is known to the whole world
// and goes through a file all the same, which is gone before the first payment.
func newSettler(ctx caddy.Context, chain *devchain.Chain) (settler, error) {
	dir, err := os.MkdirTemp("", "caddy-paywall-dev")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "gas_key")
	if err := os.WriteFile(file, []byte(chain.Accounts()[0].PrivateKey), 0o600); err != nil {
		return nil, err
	}
	f := &evm.Facilitator{Networks: map[string]*evm.Network{
		network: {
			RPC:     []string{chain.RPC()},
			Signers: []string{"{file." + file + "}"},
			// Test money: whoever tries Permit2 with an account that has nothing else is
			// welcome to the gas.
			ApprovalBudget: "1/day",
		},
	}}
	if err := f.Provision(ctx); err != nil {
		return nil, errors.Join(err, f.Cleanup())
	}
	return f, nil
}
