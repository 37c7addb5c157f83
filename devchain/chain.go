package devchain

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/ethclient"
	"github.com/ethereum/go-ethereum/rpc"
	"go.uber.org/zap"
)

// Options are the choices of who starts a chain. The zero value is good.
type Options struct {
	// Listen is where JSON-RPC is served, on loopback only. Default:
	// "127.0.0.1:0", any free port.
	Listen string
	// Now is the clock that dates the blocks. It may be set to another time, but it
	// has to run. Default: time.Now.
	Now func() time.Time
	// BlockEvery is the shortest time between two blocks. Below a second the chain's
	// clock runs ahead while blocks follow each other closely, up to ten seconds, and
	// then waits. Default: one second.
	BlockEvery time.Duration
	// Logger takes what goes wrong. Default: none.
	Logger *zap.Logger
}

// Chain is a running chain. Its methods may be called from many goroutines.
type Chain struct {
	accounts []Account
	owner    Account
	genesis  common.Hash
	url      string

	backend *backend
	sealer  *sealer
	server  *http.Server
	client  *ethclient.Client

	// sending makes the transactions of owner take turns, who has one nonce.
	sending sync.Mutex

	stop    context.CancelFunc
	running sync.WaitGroup
	closing sync.Once
	closed  error
}

// Start starts a chain with nothing but its first block, in which the contracts
// and the money already are. It runs until Close.
func Start(o Options) (*Chain, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.BlockEvery <= 0 {
		o.BlockEvery = time.Second
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	derived, err := deriveAccounts(accountCount + 1)
	if err != nil {
		return nil, fmt.Errorf("deriving the accounts: %w", err)
	}
	c := &Chain{accounts: derived[:accountCount], owner: derived[accountCount]}
	listener, err := listen(o.Listen)
	if err != nil {
		return nil, err
	}
	if err := c.start(o, listener); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("starting the chain: %w", err)
	}
	return c, nil
}

func (c *Chain) start(o Options, listener net.Listener) error {
	genesis, err := newGenesis(o.Now(), c.accounts, c.owner)
	if err != nil {
		return err
	}
	if c.backend, err = newBackend(genesis); err != nil {
		return err
	}
	c.genesis = c.backend.eth.BlockChain().Genesis().Hash()
	c.sealer = &sealer{eth: c.backend.eth, now: o.Now, every: o.BlockEvery, logger: o.Logger}
	if err := c.sealer.first(); err != nil {
		return errors.Join(err, c.backend.close())
	}
	c.client = ethclient.NewClient(rpc.DialInProc(c.backend.rpc))
	c.url = "http://" + listener.Addr().String()
	c.server = c.newServer(o.Logger)

	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.running.Go(func() { c.sealer.run(ctx) })
	c.running.Go(func() {
		if err := c.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			o.Logger.Error("serving JSON-RPC", zap.Error(err))
		}
	})
	return nil
}

// RPC returns the URL of JSON-RPC, like http://127.0.0.1:8545.
func (c *Chain) RPC() string { return c.url }

// ChainID returns the id of the chain, that of Base Sepolia.
func (c *Chain) ChainID() *big.Int { return big.NewInt(ChainID) }

// Genesis returns the hash of the first block. Every chain has its own.
func (c *Chain) Genesis() common.Hash { return c.genesis }

// Accounts returns the accounts of the test mnemonic. All have ether; the first,
// who pays for gas as a facilitator, has no test dollars, and the others have
// 10,000 each.
func (c *Chain) Accounts() []Account { return slices.Clone(c.accounts) }

// Close stops the chain and forgets it. It frees the port and returns when nothing
// of the chain runs any more.
func (c *Chain) Close() error {
	c.closing.Do(func() {
		c.stop()
		// Calls take milliseconds; what takes longer waits for a block that will
		// not come.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := c.server.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = c.server.Close()
		}
		c.running.Wait()
		c.client.Close()
		c.closed = errors.Join(err, c.backend.close())
	})
	return c.closed
}
