package evm

import (
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// UnmarshalCaddyfile sets up the facilitator from Caddyfile tokens:
//
//	evm {
//		network <name> {
//			rpc           <url>...
//			signer        {file./path/to/key}
//			confirmations <n>
//		}
//	}
//
// A chain is named as everywhere else, for example base or eip155:8453. There
// may be several networks. The signer is {file.*} or {env.*}, never a key.
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
			return d.Errf("%s is not supported yet: contract wallets are refused", word)
		default:
			return d.Errf("unknown word %q in an evm facilitator; known is network", word)
		}
	}
	if len(f.Networks) == 0 {
		return d.Err("an evm facilitator needs a block with at least one network")
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
	network, _, err := findChain(name)
	if err != nil {
		return d.Errf("network %s: %v", name, err)
	}
	for other := range f.Networks {
		if n, _, err := findChain(other); err == nil && n.CAIP2 == network.CAIP2 {
			return d.Errf("network %s is given twice; put everything into one block", name)
		}
	}
	n := new(Network)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := n.unmarshalOption(d); err != nil {
			return err
		}
	}
	if err := n.check(); err != nil {
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
	case "quorum", "gas_budget", "batch":
		return d.Errf("%s is not supported yet", word)
	default:
		return d.Errf("unknown word %q in a network; known are rpc, signer and confirmations", word)
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
		if err := checkURL(u); err != nil {
			return d.Errf("rpc %d: %v", i+1, err)
		}
	}
	n.RPC = args
	return nil
}

func (n *Network) unmarshalSigner(d *caddyfile.Dispenser, args []string) error {
	for _, key := range args {
		if err := checkKey(key); err != nil {
			return d.Errf("signer: %v", err)
		}
	}
	if len(args) > 1 {
		return d.Err("signer: several keys are not supported yet; give one")
	}
	n.Signers = args
	return nil
}

func (n *Network) unmarshalConfirmations(d *caddyfile.Dispenser, args []string) error {
	count, err := strconv.Atoi(args[0])
	if err != nil || len(args) > 1 || count < 1 || count > maxConfirmations {
		return d.Errf("confirmations wants one number from 1 to %d; 1 is the block that the transfer is in", maxConfirmations)
	}
	n.Confirmations = count
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Facilitator)(nil)
