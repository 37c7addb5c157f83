package devchain

import (
	"fmt"
	"math/big"

	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/eth"
	"github.com/ethereum/go-ethereum/eth/ethconfig"
	"github.com/ethereum/go-ethereum/eth/filters"
	"github.com/ethereum/go-ethereum/node"
	"github.com/ethereum/go-ethereum/p2p"
	"github.com/ethereum/go-ethereum/rpc"
)

// backend is go-ethereum: the chain, the pool of waiting transactions, and the
// JSON-RPC methods on both. What it lacks is somebody who seals blocks.
//
// go-ethereum has a simulated backend of its own. It is not used because it does
// not say when something waits, leaves out of a block what its pool has not sorted
// in yet, and dates blocks by a clock that cannot be set.
type backend struct {
	node *node.Node
	eth  *eth.Ethereum
	rpc  *rpc.Server
}

func newBackend(genesis *core.Genesis) (*backend, error) {
	// No listener, no peers, no data directory: a node for itself.
	stack, err := node.New(&node.Config{
		Name: "devchain",
		P2P:  p2p.Config{NoDiscovery: true, NoDial: true},
	})
	if err != nil {
		return nil, err
	}
	ethereum, err := eth.New(stack, ethConfig(genesis))
	if err != nil {
		_ = stack.Close()
		return nil, err
	}
	b := &backend{node: stack, eth: ethereum, rpc: rpc.NewServer()}
	b.rpc.SetBatchLimits(node.DefaultConfig.BatchRequestLimit, node.DefaultConfig.BatchResponseMaxSize)
	if err := b.register(); err != nil {
		_ = stack.Close()
		return nil, err
	}
	if err := stack.Start(); err != nil {
		return nil, err // and closed by itself
	}
	ethereum.SetSynced() // there is nobody to catch up with
	return b, nil
}

func ethConfig(genesis *core.Genesis) *ethconfig.Config {
	c := ethconfig.Defaults
	c.Genesis = genesis
	c.SyncMode = ethconfig.FullSync
	c.TxPool.NoLocals = true // no journal on disk
	c.LogNoHistory = true    // few blocks: searching them beats an index
	// Defaults are for main net.
	c.DatabaseCache, c.TrieCleanCache, c.TrieDirtyCache, c.SnapshotCache = 16, 16, 64, 16
	// A batch of settlements may offer more gas than 1 ether pays for: here nobody
	// loses any.
	c.RPCTxFeeCap = 0
	// The sealer takes whatever the pool takes, or it would wait for ever.
	c.Miner.GasPrice = new(big.Int).SetUint64(c.TxPool.PriceLimit)
	c.Miner.GasCeil = gasLimit
	return &c
}

// register offers what clients and wallets use and leaves out the methods that
// operate a node.
func (b *backend) register() error {
	apis := append(b.eth.APIs(),
		rpc.API{Namespace: "eth", Service: filters.NewFilterAPI(filters.NewFilterSystem(b.eth.APIBackend, filters.Config{}))},
		rpc.API{Namespace: "web3", Service: web3{}},
	)
	for _, api := range apis {
		switch api.Namespace {
		case "eth", "net", "web3":
			if err := b.rpc.RegisterName(api.Namespace, api.Service); err != nil {
				return fmt.Errorf("namespace %s: %w", api.Namespace, err)
			}
		}
	}
	return nil
}

func (b *backend) close() error {
	b.rpc.Stop()
	return b.node.Close()
}
