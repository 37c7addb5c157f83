// Package evm is our own facilitator for EVM chains: the Caddy module
// paywall.facilitators.evm. It verifies payments and settles them itself,
// through JSON-RPC, and pays the gas.
//
// It settles the schemes "exact", with EIP-3009 and with Permit2, and "upto", for
// ordinary accounts and for those that have code (ERC-1271, EIP-7702). Wallets that
// do not exist yet (ERC-6492) are made by factories that the operator allows.
//
// Package chain reads what nodes say. This package holds the keys, decides what is sent, and
// sends it.
package evm

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

func init() {
	caddy.RegisterModule(Facilitator{})
}

// Facilitator verifies and settles payments on EVM chains by itself, so that no
// third party sees them. It needs a node of each chain, and a key whose account
// pays the gas, or several. The money never passes that account: payers sign transfers to
// the seller's address, and this facilitator only sends them to the chain.
//
// The account needs nothing but some of the chain's own coin. While it has too
// little, what it would settle is not offered. Do not use its key for anything else:
// whoever sends transactions with the same key takes their numbers from each other.
// Gateways that share a ledger bear that, and have the same keys.
type Facilitator struct {
	// The chains, by name (`base`) or CAIP-2 id (`eip155:8453`). At least one.
	Networks map[string]*Network `json:"networks,omitempty"`

	// Addresses of contracts that make wallets (ERC-6492). A payer whose wallet does
	// not exist yet can then pay with its first transaction, which makes it; the gas
	// for that is on us. Such a call is whatever the payer likes, so allow only
	// factories that you know, and never a token. Default: none, which refuses those
	// payers.
	ERC6492Factories []string `json:"erc6492_factories,omitempty"`

	factories []common.Address
	chains    map[string]*settler // by CAIP-2 id
	looking   *chain.Look         // at the same chains; it closes their connections
	logger    *zap.Logger
	held      []string // keys of the pool

	// What tests replace. Each of their chains has a pool of its own, so that two with one id
	// can be at work at once.
	pool  *caddy.UsagePool
	now   func() time.Time
	sleep func(context.Context, time.Duration) error
	dial  chain.Dialer
}

// Network is one chain that payments are settled on.
type Network struct {
	// The URLs of JSON-RPC nodes of the chain. They are asked in this order: the
	// next one when the one before does not answer, is on another chain, or lags
	// behind. Transactions go to all of them. For a payment in doubt all of them are
	// asked, too: if there are several, two must agree that it can never move money any
	// more, and none may contradict that it has. `https` only, except on loopback,
	// where `http` and `ws` are allowed too. Whole URLs may be `{env.*}` or `{file.*}`, which keeps an API
	// key in them out of config dumps. At least one, at most 8.
	RPC []string `json:"rpc,omitempty"`

	// The private keys of the accounts that pay the gas: each 32 bytes in
	// hexadecimal, given as `{file.*}` or `{env.*}`, or encrypted, as go-ethereum
	// writes it, given as `keystore {file.*} {file.*}`: the file and its password,
	// both from a file or the environment. A key in the config itself
	// is refused, since config dumps would show it. So is a file that others than its
	// owner can change; one that they can read is warned of. One is enough; of several, the
	// one with the fewest payments on their way settles the next, and one without
	// gas is passed over while others have some. Payers of `upto` are asked to name
	// the first, and only the one that they named can settle. At least one, at most
	// 16, none twice.
	Signers []string `json:"signers,omitempty"`

	// How many blocks must hold a payment before it counts: 1 is the block that
	// the transfer is in. More is safer on chains that reorganise, and makes
	// payers wait. Default: `1`. At most as many as are reached within the two
	// minutes that a settlement is waited for: 9 on Ethereum, 59 on Base, never
	// more than 100.
	Confirmations int `json:"confirmations,omitempty"`

	// How many of the nodes must have seen a payment in the chain, and more of them than
	// say otherwise, before it counts. At most the number of different nodes. Each
	// settlement then asks all of them for its receipt. Default: `1`, which believes the
	// node that answers.
	Quorum int `json:"quorum,omitempty"`

	// The quorum is needed for payments of more than this many US dollars, like `$5`, and
	// for those in tokens that are not known to be worth a dollar; for others one node is
	// enough. Default: for every payment.
	QuorumAbove string `json:"quorum_above,omitempty"`

	// How much of the chain's own coin a day may go to payers of Permit2 prices who
	// have signed an approval but have no gas to send it, like `0.01/day`. With it
	// the extension erc20ApprovalGasSponsoring is offered. It is a gift: a dishonest
	// payer can keep it. Half of it at most is for those who have not paid here before.
	// It is counted from midnight UTC or the start of the process.
	// Default: nothing, and the extension is not offered.
	ApprovalBudget string `json:"approval_budget,omitempty"`

	// How much of the chain's own coin a day may be lost by transactions that cost
	// gas and moved no money, like `0.01/day`. Payers can make that happen: the money
	// leaves between the simulation and the block, or the code of a wallet tells the
	// chain from a simulation. Half of it is for payers with code, and when that is
	// used up they are refused until the next day; the other half is for payers
	// without code who have not paid here before. Those who have may lose as much a
	// second time, which is counted apart. Default: 20,000,000 gas.
	GasBudget string `json:"gas_budget,omitempty"`

	// The most of the chain's own coin that one settlement may cost, like `0.0001`,
	// at the price of the moment and counted with 100,000 gas, and with what the chain
	// takes for the publication (OP stack). Above it nothing is
	// offered and nothing sent. Default: ten times what was usual in the last hours.
	MaxFee string `json:"max_fee,omitempty"`

	// What one of the chain's own coin is worth in US dollars, like `$3000`. Only
	// prices are compared with it: the log and the metrics tell of one that is below what
	// its settlement costs. Default: not known, and nothing is told.
	CoinPrice string `json:"coin_price,omitempty"`

	// Whether payers with code can pay: contract wallets, and accounts that have
	// delegated to one (EIP-7702). `off`, or the gas that their code may use to say
	// whether a signature is good. Default: `400000`.
	ContractWallets string `json:"contract_wallets,omitempty"`

	// How many payments may go in one transaction, when more than one waits; 1 is
	// never. It saves about a third of the gas, and one key settles so many times more.
	// Only payments by EIP-3009 of payers without code go together, and one that
	// fails takes no other with it. Default: `20`. At most 50.
	Batch int `json:"batch,omitempty"`

	// How long a payment waits for others while a transaction is on its way
	// anyhow; the first one never waits. Default: `200ms`. At most `2s`.
	BatchWait caddy.Duration `json:"batch_wait,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Facilitator) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "paywall.facilitators.evm",
		New: func() caddy.Module { return new(Facilitator) },
	}
}

// Provision resolves the keys and the URLs. It uses no network: nodes are asked
// when the first payment comes, or Supported is called.
func (f *Facilitator) Provision(ctx caddy.Context) error {
	f.logger = ctx.Logger()
	return f.provision()
}

func (f *Facilitator) provision() error {
	if len(f.Networks) == 0 {
		return errors.New("no network: name at least one chain to settle on, like base")
	}
	f.prepare()
	var err error
	if f.factories, err = checkFactories(f.ERC6492Factories); err != nil {
		return fmt.Errorf("erc6492_factory: %w", err)
	}
	// In order, so that of several mistakes the same one is reported each time.
	for _, name := range slices.Sorted(maps.Keys(f.Networks)) {
		if err := f.provisionNetwork(name, f.Networks[name]); err != nil {
			return fmt.Errorf("network %s: %w", name, err)
		}
	}
	return nil
}

// New makes a facilitator for one chain without a config: for programs and tests
// that have a key at hand. It is ready to be used, not to be provisioned; call
// Cleanup after use. rpc is what Network.RPC is.
func New(network string, rpc []string, key *ecdsa.PrivateKey, logger *zap.Logger) (*Facilitator, error) {
	f := &Facilitator{logger: logger}
	f.prepare()
	k := &privateKey{address: crypto.PubkeyToAddress(key.PublicKey), key: key}
	if err := f.settleOn(network, &Network{RPC: rpc}, []*privateKey{k}); err != nil {
		return nil, fmt.Errorf("network %s: %w", network, err)
	}
	return f, nil
}

// prepare makes what a facilitator has besides its chains.
func (f *Facilitator) prepare() {
	if f.now == nil {
		f.now, f.sleep = time.Now, facilitator.Sleep
	}
	if f.pool == nil {
		f.pool = pool
	}
	f.chains = make(map[string]*settler)
	f.looking = &chain.Look{Closed: f.release}
}

func (f *Facilitator) provisionNetwork(name string, n *Network) error {
	if n == nil {
		return errors.New("it has no settings: it needs rpc and signers")
	}
	_, id, err := chain.Find(name)
	if err != nil {
		return err
	}
	if err := n.check(id); err != nil {
		return err
	}
	keys, err := resolveKeys(n.Signers, f.logger)
	if err != nil {
		return err
	}
	return f.settleOn(name, n, keys)
}

// settleOn adds a chain.
func (f *Facilitator) settleOn(name string, n *Network, keys []*privateKey) error {
	seen, err := chain.New(name, n.RPC, chain.Options{Logger: f.logger, Now: f.now, Dial: f.dial})
	if err != nil {
		return err
	}
	if err := f.looking.Add(seen); err != nil {
		return err
	}
	seen.Quorum, seen.Confirmations = n.Quorum, uint64(max(n.Confirmations, defaultConfirmations)) // #nosec G115 -- checked, and small
	if n.QuorumAbove != "" {
		if seen.QuorumAbove, err = parseDollars(n.QuorumAbove); err != nil {
			return fmt.Errorf("quorum_above: %w", err)
		}
	}
	c := &settler{
		Chain: seen, looking: f.looking, factories: f.factories, l1InGas: l1InGas[seen.ID],
		spent: make(chan struct{}, 1), now: f.now, sleep: f.sleep,
	}
	if n.ApprovalBudget != "" {
		if c.approvalBudget, err = parseBudget(n.ApprovalBudget); err != nil {
			return fmt.Errorf("approval_budget: %w", err)
		}
	}
	if n.GasBudget != "" {
		if c.gasBudget, err = parseBudget(n.GasBudget); err != nil {
			return fmt.Errorf("gas_budget: %w", err)
		}
	}
	if n.MaxFee != "" {
		if c.maxFee, err = parseCoin(n.MaxFee); err != nil {
			return fmt.Errorf("max_fee: %w", err)
		}
	}
	if n.CoinPrice != "" {
		if c.coinMicros, err = parseDollars(n.CoinPrice); err != nil {
			return fmt.Errorf("coin_price: %w", err)
		}
	}
	if c.walletGas, c.noWallets, err = parseWallets(n.ContractWallets); err != nil {
		return fmt.Errorf("contract_wallets: %w", err)
	}
	c.batch, c.batchWait = cmp.Or(n.Batch, defaultBatch), cmp.Or(time.Duration(n.BatchWait), defaultBatchWait)
	if c.shared, err = f.share(c); err != nil {
		return err
	}
	for _, k := range keys {
		c.accounts = append(c.accounts, c.shared.account(k))
	}
	f.chains[c.CAIP2] = c
	return nil
}

// check finds what is wrong with the settings of a chain, secrets apart.
func (n *Network) check(id uint64) error {
	if err := chain.CheckNodes(n.RPC); err != nil {
		return err
	}
	if err := checkKeys(n.Signers); err != nil {
		return err
	}
	if err := checkConfirmations(n.Confirmations, id); err != nil {
		return err
	}
	if nodes := len(slices.Compact(slices.Sorted(slices.Values(n.RPC)))); n.Quorum < 0 || n.Quorum > nodes {
		return fmt.Errorf("quorum %d: must be 1 to %d, the number of different nodes in rpc", n.Quorum, nodes)
	}
	if n.QuorumAbove != "" {
		if _, err := parseDollars(n.QuorumAbove); err != nil {
			return fmt.Errorf("quorum_above: %w", err)
		}
	}
	for word, budget := range map[string]string{"approval_budget": n.ApprovalBudget, "gas_budget": n.GasBudget} {
		if budget == "" {
			continue
		}
		if _, err := parseBudget(budget); err != nil {
			return fmt.Errorf("%s: %w", word, err)
		}
	}
	if n.MaxFee != "" {
		if _, err := parseCoin(n.MaxFee); err != nil {
			return fmt.Errorf("max_fee: %w", err)
		}
	}
	if n.CoinPrice != "" {
		if _, err := parseDollars(n.CoinPrice); err != nil {
			return fmt.Errorf("coin_price: %w", err)
		}
	}
	if _, _, err := parseWallets(n.ContractWallets); err != nil {
		return fmt.Errorf("contract_wallets: %w", err)
	}
	if n.Batch < 0 || n.Batch > maxBatch {
		return fmt.Errorf("batch %d: must be 1 to %d", n.Batch, maxBatch)
	}
	if n.BatchWait < 0 || time.Duration(n.BatchWait) > maxBatchWait {
		return fmt.Errorf("batch %s: must be at most %s", time.Duration(n.BatchWait), maxBatchWait)
	}
	return nil
}

// maxWalletGas bounds the gas that the code of a payer can be allowed.
const maxWalletGas = 5_000_000

// parseWallets reads contract_wallets: off, or an amount of gas.
func parseWallets(s string) (gas uint64, off bool, err error) {
	switch s {
	case "":
		return defaultWalletGas, false, nil
	case "off":
		return defaultWalletGas, true, nil
	}
	gas, err = strconv.ParseUint(s, 10, 64)
	if err != nil || gas < 10_000 || gas > maxWalletGas {
		return 0, false, fmt.Errorf("%q: write off, or the gas that their code may use, from 10000 to %d", s, maxWalletGas)
	}
	return gas, false, nil
}

// Cleanup ends the use of the facilitator. Payments that are being settled go on; the
// connections close, and what configs share is let go of, after the last of them.
func (f *Facilitator) Cleanup() error {
	f.looking.Close()
	return nil
}

// release lets go of what configs share.
func (f *Facilitator) release() {
	for _, key := range f.held {
		_, _ = f.pool.Delete(key) // there is nothing in it that fails to close
	}
	f.held = nil
}

// Interface guards
var (
	_ caddy.Provisioner       = (*Facilitator)(nil)
	_ caddy.CleanerUpper      = (*Facilitator)(nil)
	_ facilitator.Facilitator = (*Facilitator)(nil)
	_ facilitator.Funded      = (*Facilitator)(nil)
)
