package evm

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// UnmarshalCaddyfile sets up the facilitator from Caddyfile tokens:
//
//	evm {
//		network <name> {
//			rpc             <url>...
//			signer          <key>...
//			confirmations   <n>
//			quorum          <n> [above <dollars>]
//			approval_budget <amount>/day
//			gas_budget      <amount>/day
//			max_fee         <amount>
//			coin_price      <dollars>
//			contract_wallets off|<gas>
//			batch           <n> [<duration>]
//		}
//		erc6492_factory <address>...
//	}
//
// A chain is named as everywhere else, for example base or eip155:8453. There
// may be several networks. A key is {file.*} or {env.*}, never the key itself, or
// `keystore <file> <password>`, of which both are {file.*} or {env.*}.
func (f *Facilitator) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() {
		return d.Errf("surplus word %q after evm; its networks go into a block", d.Val())
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch word := d.Val(); word {
		case "network":
			if err := f.unmarshalNetwork(d); err != nil {
				return err
			}
		case "erc6492_factory":
			if err := f.unmarshalFactories(d); err != nil {
				return err
			}
		default:
			return d.Errf("unknown word %q in an evm facilitator; known are network and erc6492_factory", word)
		}
	}
	if len(f.Networks) == 0 {
		return d.Err("an evm facilitator needs a block with at least one network")
	}
	return nil
}

// unmarshalFactories reads `erc6492_factory <address>…`, which may come again.
func (f *Facilitator) unmarshalFactories(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.Err("erc6492_factory wants the address of a contract that makes wallets (an unset {$VARIABLE} vanishes)")
	}
	f.ERC6492Factories = append(f.ERC6492Factories, args...)
	if _, err := checkFactories(f.ERC6492Factories); err != nil {
		return d.Errf("erc6492_factory: %v", err)
	}
	if nesting := d.Nesting(); d.NextBlock(nesting) {
		return d.Errf("%q begins a block where none belongs", d.Val())
	}
	return nil
}

// unmarshalNetwork reads `network <name> { … }`.
func (f *Facilitator) unmarshalNetwork(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 1 {
		return d.Errf("network wants the name of one chain, like `network base { … }`, not %d words (an unset {$VARIABLE} vanishes)", len(args))
	}
	name := args[0]
	network, id, err := chain.Find(name)
	if err != nil {
		return d.Errf("network %s: %v", name, err)
	}
	for other := range f.Networks {
		if n, _, err := chain.Find(other); err == nil && n.CAIP2 == network.CAIP2 {
			return d.Errf("network %s is given twice; put everything into one block", name)
		}
	}
	n := new(Network)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := n.unmarshalOption(d); err != nil {
			return err
		}
	}
	if err := n.check(id); err != nil {
		return d.Errf("network %s: %v", name, err)
	}
	if f.Networks == nil {
		f.Networks = make(map[string]*Network)
	}
	f.Networks[name] = n
	return nil
}

func (n *Network) unmarshalOption(d *caddyfile.Dispenser) error {
	word := d.Val()
	var given bool
	switch word {
	case "rpc":
		given = n.RPC != nil
	case "signer":
		given = n.Signers != nil
	case "confirmations":
		given = n.Confirmations != 0
	case "approval_budget":
		given = n.ApprovalBudget != ""
	case "gas_budget":
		given = n.GasBudget != ""
	case "max_fee":
		given = n.MaxFee != ""
	case "coin_price":
		given = n.CoinPrice != ""
	case "contract_wallets":
		given = n.ContractWallets != ""
	case "batch":
		given = n.Batch != 0
	case "quorum":
		given = n.Quorum != 0
	default:
		return d.Errf("unknown word %q in a network; known are rpc, signer, confirmations, quorum, approval_budget, gas_budget, max_fee, coin_price, contract_wallets and batch", word)
	}
	if given {
		return d.Errf("%s is given twice; write all of it in one line", word)
	}
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.Errf("%s wants something after it (an unset {$VARIABLE} vanishes)", word)
	}
	var err error
	switch word {
	case "rpc":
		err = n.unmarshalRPC(d, args)
	case "signer":
		err = n.unmarshalSigner(d, args)
	case "confirmations":
		err = n.unmarshalConfirmations(d, args)
	case "quorum":
		err = n.unmarshalQuorum(d, args)
	case "approval_budget":
		err = unmarshalBudget(d, args, &n.ApprovalBudget)
	case "gas_budget":
		err = unmarshalBudget(d, args, &n.GasBudget)
	case "max_fee":
		err = n.unmarshalMaxFee(d, args)
	case "coin_price":
		err = n.unmarshalCoinPrice(d, args)
	case "contract_wallets":
		err = n.unmarshalWallets(d, args)
	case "batch":
		err = n.unmarshalBatch(d, args)
	}
	if err != nil {
		return err
	}
	if nesting := d.Nesting(); d.NextBlock(nesting) {
		return d.Errf("%q begins a block where none belongs", d.Val())
	}
	return nil
}

func (n *Network) unmarshalRPC(d *caddyfile.Dispenser, args []string) error {
	for i, u := range args {
		if err := chain.CheckURL(u); err != nil {
			return d.Errf("rpc %d: %v", i+1, err)
		}
	}
	n.RPC = args
	return nil
}

func (n *Network) unmarshalSigner(d *caddyfile.Dispenser, args []string) error {
	keys := joinKeystores(args)
	if err := checkKeys(keys); err != nil {
		return d.WrapErr(err)
	}
	n.Signers = keys
	return nil
}

// joinKeystores makes one signer of the word keystore and the two words behind it.
func joinKeystores(words []string) (keys []string) {
	for len(words) > 0 {
		n := 1
		if words[0] == keystoreWord {
			n = min(3, len(words))
		}
		keys = append(keys, strings.Join(words[:n], " "))
		words = words[n:]
	}
	return keys
}

func (n *Network) unmarshalConfirmations(d *caddyfile.Dispenser, args []string) error {
	count, err := strconv.Atoi(args[0])
	if err != nil || len(args) > 1 || count < 1 || count > maxConfirmations {
		return d.Errf("confirmations wants one number from 1 to %d; 1 is the block that the transfer is in", maxConfirmations)
	}
	n.Confirmations = count
	return nil
}

func (n *Network) unmarshalQuorum(d *caddyfile.Dispenser, args []string) error {
	count, err := strconv.Atoi(args[0])
	switch {
	case err != nil || count < 1 || count > chain.MaxNodes, len(args) > 1 && (len(args) != 3 || args[1] != "above"):
		return d.Errf("quorum wants one number from 1 to %d: how many nodes must have seen a payment; `above $5` may follow", chain.MaxNodes)
	case len(args) == 3:
		if _, err := parseDollars(args[2]); err != nil {
			return d.Errf("quorum: %v", err)
		}
		n.QuorumAbove = args[2]
	}
	n.Quorum = count
	return nil
}

func unmarshalBudget(d *caddyfile.Dispenser, args []string, budget *string) error {
	if len(args) != 1 {
		return d.Err("a budget wants one amount of the chain's own coin a day, like 0.01/day")
	}
	if _, err := parseBudget(args[0]); err != nil {
		return d.WrapErr(err)
	}
	*budget = args[0]
	return nil
}

func (n *Network) unmarshalMaxFee(d *caddyfile.Dispenser, args []string) error {
	if len(args) != 1 {
		return d.Err("max_fee wants one amount of the chain's own coin, like 0.0001")
	}
	if _, err := parseCoin(args[0]); err != nil {
		return d.Errf("max_fee: %v", err)
	}
	n.MaxFee = args[0]
	return nil
}

func (n *Network) unmarshalCoinPrice(d *caddyfile.Dispenser, args []string) error {
	if len(args) != 1 {
		return d.Err("coin_price wants what one of the chain's own coin is worth, like $3000")
	}
	if _, err := parseDollars(args[0]); err != nil {
		return d.Errf("coin_price: %v", err)
	}
	n.CoinPrice = args[0]
	return nil
}

func (n *Network) unmarshalWallets(d *caddyfile.Dispenser, args []string) error {
	if len(args) != 1 {
		return d.Err("contract_wallets wants off, or the gas that the code of a payer may use")
	}
	if _, _, err := parseWallets(args[0]); err != nil {
		return d.Errf("contract_wallets %v", err)
	}
	n.ContractWallets = args[0]
	return nil
}

// unmarshalBatch reads `batch <n> [<duration>]`, or `batch off`.
func (n *Network) unmarshalBatch(d *caddyfile.Dispenser, args []string) error {
	if len(args) == 1 && args[0] == "off" {
		n.Batch = 1
		return nil
	}
	count, err := strconv.Atoi(args[0])
	if err != nil || len(args) > 2 || count < 1 || count > maxBatch {
		return d.Errf("batch wants off, or how many payments may go in one transaction, from 1 to %d, and how long one waits for others, like `batch 20 200ms`", maxBatch)
	}
	n.Batch = count
	if len(args) == 2 {
		wait, err := caddy.ParseDuration(args[1])
		if err != nil || wait <= 0 || wait > maxBatchWait {
			return d.Errf("batch %s: how long a payment waits for others is a time up to %s, like 200ms", args[1], maxBatchWait)
		}
		n.BatchWait = caddy.Duration(wait)
	}
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Facilitator)(nil)
