//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rpc"
	"github.com/go-json-experiment/json"
)

// Where the contracts are on Base Sepolia, whose place the chain takes.
var (
	dollar     = common.HexToAddress("0x036CbD53842c5426634e7929541eC2318f3dCF7e")
	multicall3 = common.HexToAddress("0xcA11bde05977b3631167028862bE2a173976CA11")
)

const (
	chainID = 84532
	// slotSupply and slotBalance are where the test dollar keeps what there is of it,
	// and what accounts have; see test/interop/token/TestDollar.sol.
	slotSupply, slotBalance = 1, 2
	// atOnce is how many accounts get money in one round trip.
	atOnce = 500
)

// ether is what accounts get that pay gas.
var ether = new(big.Int).Mul(big.NewInt(1_000), big.NewInt(1e18))

// chain is anvil, as a process of its own.
type chain struct {
	url    string
	client *rpc.Client
	head   atomic.Uint64 // the number of the last block
	heads  chan struct{} // holds one when there is a new one
	quit   context.CancelFunc
	cmd    *exec.Cmd
	supply big.Int
}

// startChain starts anvil, and puts the contracts there.
func (r *rush) startChain(ctx context.Context) (*chain, error) {
	program := r.anvilProgram()
	cmd := exec.Command(program, "--host", "127.0.0.1", "--port", "0", "--chain-id", strconv.Itoa(chainID), "--hardfork", "cancun",
		"--block-time", strconv.Itoa(r.block), "--gas-limit", strconv.FormatUint(r.blockGas, 10), "--block-base-fee-per-gas", "1000000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	said, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: `make deps` installs it", err)
	}
	c := &chain{cmd: cmd, heads: make(chan struct{}, 1)}
	listening := make(chan string, 1)
	go func() {
		defer close(listening)
		lines := bufio.NewScanner(said)
		for lines.Scan() { // to the end: else anvil waits until somebody reads
			if address, ok := strings.CutPrefix(lines.Text(), "Listening on "); ok {
				listening <- address
			}
		}
	}()
	select {
	case address, ok := <-listening:
		if !ok {
			return nil, errors.New("anvil ended")
		}
		c.url = "http://" + strings.TrimSpace(address)
	case <-time.After(seconds(30)):
		c.stop()
		return nil, errors.New("anvil does not start")
	}
	if c.client, err = rpc.DialContext(ctx, c.url); err == nil {
		err = c.place(ctx, filepath.Join(r.root, "devchain", "contracts", "code.json"))
	}
	if err != nil {
		c.stop()
		return nil, err
	}
	ctx, c.quit = context.WithCancel(ctx)
	go c.watch(ctx)
	return c, nil
}

func (r *rush) anvilProgram() string {
	pinned := filepath.Join(r.root, "test", "interop", "node_modules", "@foundry-rs", "anvil-linux-amd64", "bin", "anvil")
	switch _, missing := os.Stat(pinned); {
	case r.anvil != "":
		return r.anvil
	case os.Getenv("ANVIL") != "":
		return os.Getenv("ANVIL")
	case missing == nil:
		return pinned
	}
	return "anvil"
}

func (c *chain) stop() {
	if c.quit != nil {
		c.quit()
	}
	_ = c.cmd.Process.Kill() // it has nothing to save
	_ = c.cmd.Wait()
}

// place puts the contracts where they are on Base Sepolia.
func (c *chain) place(ctx context.Context, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var code map[string]string
	if err := json.Unmarshal(b, &code); err != nil {
		return err
	}
	for name, at := range map[string]common.Address{"TestDollar": dollar, "Multicall3": multicall3} {
		if code[name] == "" {
			return fmt.Errorf("%s has no %s", file, name)
		}
		if err := c.setCode(ctx, at, code[name]); err != nil {
			return err
		}
	}
	return nil
}

func (c *chain) setCode(ctx context.Context, at common.Address, code string) error {
	return c.client.CallContext(ctx, nil, "anvil_setCode", at, code)
}

// watch follows the head.
func (c *chain) watch(ctx context.Context) {
	for ctx.Err() == nil {
		var n hexutil.Uint64
		if c.client.CallContext(ctx, &n, "eth_blockNumber") == nil && c.head.Swap(uint64(n)) != uint64(n) {
			select {
			case c.heads <- struct{}{}:
			default:
			}
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// fund gives accounts test dollars, by writing them into the storage of the token.
func (c *chain) fund(ctx context.Context, accounts []common.Address, each *big.Int) error {
	for len(accounts) > 0 {
		some := accounts[:min(atOnce, len(accounts))]
		accounts = accounts[len(some):]
		batch := make([]rpc.BatchElem, 0, len(some)+1)
		for _, a := range some {
			c.supply.Add(&c.supply, each)
			batch = append(batch, store(crypto.Keccak256Hash(common.LeftPadBytes(a[:], 32), word(slotBalance)), each))
		}
		batch = append(batch, store(common.BytesToHash(word(slotSupply)), &c.supply))
		if err := c.batch(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

func store(slot common.Hash, value *big.Int) rpc.BatchElem {
	return rpc.BatchElem{Method: "anvil_setStorageAt", Args: []any{dollar, slot, common.BigToHash(value)}, Result: new(any)}
}

func word(n int64) []byte { return common.LeftPadBytes(big.NewInt(n).Bytes(), 32) }

// enrich gives accounts coin for gas.
func (c *chain) enrich(ctx context.Context, accounts []common.Address) error {
	for len(accounts) > 0 {
		some := accounts[:min(atOnce, len(accounts))]
		accounts = accounts[len(some):]
		var batch []rpc.BatchElem
		for _, a := range some {
			batch = append(batch, rpc.BatchElem{Method: "anvil_setBalance", Args: []any{a, (*hexutil.Big)(ether)}, Result: new(any)})
		}
		if err := c.batch(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

func (c *chain) batch(ctx context.Context, batch []rpc.BatchElem) error {
	if err := c.client.BatchCallContext(ctx, batch); err != nil {
		return err
	}
	for i := range batch {
		if err := batch[i].Error; err != nil {
			return fmt.Errorf("%s: %w", batch[i].Method, err)
		}
	}
	return nil
}

// newKeys makes keys for the gateway to send with.
func (c *chain) newKeys(ctx context.Context, n int) (keys []*ecdsa.PrivateKey, err error) {
	var accounts []common.Address
	for _, w := range newWallets(n) {
		keys = append(keys, w.key)
		accounts = append(accounts, w.address)
	}
	return keys, c.enrich(ctx, accounts)
}

// pause waits, or less if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
