//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/big"
	"os"
	"os/exec"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/bench/process"
)

// transferTopic is that of ERC-20's Transfer.
var transferTopic = common.HexToHash("0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef")

// receipt is what became of a transaction.
type receipt struct {
	Hash    common.Hash    `json:"transactionHash"`
	Block   hexutil.Uint64 `json:"blockNumber"`
	From    common.Address `json:"from"`
	GasUsed hexutil.Uint64 `json:"gasUsed"`
	Price   hexutil.Uint64 `json:"effectiveGasPrice"`
	Status  hexutil.Uint64 `json:"status"`
	Logs    []struct {
		Address common.Address `json:"address"`
		Topics  []common.Hash  `json:"topics"`
		Data    hexutil.Bytes  `json:"data"`
	} `json:"logs"`
}

// settles lists who has paid the mint in a transaction.
func (r *receipt) settles(price *big.Int) (payers []common.Address) {
	for _, l := range r.Logs {
		if l.Address == dollar && len(l.Topics) == 3 && l.Topics[0] == transferTopic &&
			l.Topics[2] == common.BytesToHash(common.HexToAddress(payTo).Bytes()) && new(big.Int).SetBytes(l.Data).Cmp(price) == 0 {
			payers = append(payers, common.BytesToAddress(l.Topics[1][12:]))
		}
	}
	return payers
}

// audited is what the chain and the ledger say.
type audited struct {
	receipts  []receipt              // of the gateway's transactions
	settles   map[common.Address]int // payments by payer
	block     map[common.Hash]uint64 // of transactions
	transfers int                    // of honest payers
	attacks   int                    // of attackers
	sold      int                    // rows of the ledger of honest payers of which the money has moved; -1 if it cannot be read
	doubtful  int                    // and of which it is not known
	wrong     []error
	kinds     map[string]int // of what is wrong
}

// must notes what is wrong, of each kind the first few.
func (a *audited) must(right bool, format string, args ...any) {
	if right {
		return
	}
	if a.kinds[format]++; a.kinds[format] <= 3 {
		a.wrong = append(a.wrong, fmt.Errorf("wrong: "+format, args...))
	}
}

// audit compares what payers have, what the mint gave away, what the chain moved, and
// what the ledger says.
func (r *rush) audit(ctx context.Context, m *measured) (*audited, error) {
	a := &audited{settles: make(map[common.Address]int), block: make(map[common.Hash]uint64), kinds: make(map[string]int)}
	price, _ := new(big.Int).SetString(r.gateway.offer.Amount, 10)
	bad := m.attackers.addresses()
	if err := r.readChain(ctx, a, price, bad); err != nil {
		return nil, err
	}
	if err := r.readLedger(ctx, a, bad); err != nil {
		return nil, err
	}
	numbers := make(map[int]bool)
	served := 0
	for _, c := range m.clients {
		before := 0
		if c.regular {
			before = 1
		}
		charged := a.settles[c.address] - before
		if c.number > 0 {
			served++
			a.must(!numbers[c.number], "number %d was given to two payers", c.number)
			numbers[c.number] = true
			a.must(charged == 1, "a payer with number %d was charged %d times", c.number, charged)
			a.must(a.block[c.hash] > 0, "the transaction in the receipt of number %d is in no block", c.number)
		} else {
			a.must(charged == 0, "a payer without a number was charged %d times; he was told last: %s", charged, c.told)
			a.must(c.waiting, "a payer has no number, and was not told to come again, but: %s", c.told)
		}
	}
	// Attackers may leave before they get what they have paid for.
	minted, honest := int(r.mint.minted.Load()), served+m.earlier
	a.must(minted == honest+m.attackers.bought(), "the mint gave away %d numbers; %d payers and %d attackers have one", minted, honest, m.attackers.bought())
	a.must(a.transfers == honest, "the chain moved the money of payers %d times, and they have %d numbers", a.transfers, honest)
	a.must(a.attacks >= m.attackers.bought(), "attackers paid %d times, and have %d numbers", a.attacks, m.attackers.bought())
	a.must(a.sold < 0 || a.sold == honest, "the ledger has %d payments that moved money, and payers have %d numbers", a.sold, honest)
	a.must(a.doubtful == 0, "the ledger has %d payments in doubt", a.doubtful)
	return a, nil
}

// readChain reads the gateway's transactions.
func (r *rush) readChain(ctx context.Context, a *audited, price *big.Int, bad map[common.Address]bool) error {
	for n := range r.chain.head.Load() + 1 {
		var receipts []receipt
		if err := r.chain.client.CallContext(ctx, &receipts, "eth_getBlockReceipts", hexutil.Uint64(n)); err != nil {
			return err
		}
		for _, one := range receipts {
			payers := one.settles(price)
			for _, p := range payers {
				if a.settles[p]++; bad[p] {
					a.attacks++
				} else {
					a.transfers++
				}
			}
			a.block[one.Hash] = uint64(one.Block)
			if r.gateway.accounts[one.From] {
				a.receipts = append(a.receipts, one)
			}
		}
	}
	return nil
}

// readLedger counts what `caddy paywall payments` lists.
func (r *rush) readLedger(ctx context.Context, a *audited, bad map[common.Address]bool) error {
	if r.gateway.ledger == "" {
		a.sold = -1 // it has gone with the gateway
		return nil
	}
	cmd := exec.CommandContext(ctx, r.gateway.program, "paywall", "payments", "--file", r.gateway.ledger, "--format", "json")
	cmd.Env, cmd.Stderr = process.Environment(r.dir), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("reading the ledger: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var row struct {
			State string         `json:"state"`
			Payer common.Address `json:"payer"`
		}
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			return fmt.Errorf("%q: %w", lines.Bytes(), err)
		}
		if bad[row.Payer] {
			continue
		}
		switch row.State {
		case "settled", "delivering", "delivered":
			a.sold++
		case "settling", "unknown":
			a.doubtful++
		}
	}
	return lines.Err()
}
