package devfacilitator

import (
	"errors"
	"net"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/devchain"
)

// chains keeps the chain across reloads: a payer's money must not vanish because
// the config changed. There is one for all configs, whatever their address: what
// settles remembers the transactions of an account by the id of the chain, which
// two chains would share.
var chains = caddy.NewUsagePool()

const theChain = "chain"

// errEnded is for who still has a config whose chain is gone.
var errEnded = errors.New("the development chain has ended")

// shared is the chain that all configs have in common. It starts when it is first
// used, because loading a config must not open a port: `caddy validate` loads
// configs too.
type shared struct {
	mu    sync.Mutex
	chain *devchain.Chain
	users int
	ended bool
}

// enter returns the chain, started at an address if need be, and a function for
// when it is no longer used.
func (s *shared) enter(listen string, logger *zap.Logger) (*devchain.Chain, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, nil, errEnded
	}
	if s.chain == nil {
		chain, err := start(listen, logger)
		if err != nil {
			return nil, nil, err
		}
		s.chain = chain
		announce(chain, logger)
	}
	s.users++
	return s.chain, s.leave, nil
}

func (s *shared) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	_ = s.closeIfIdle()
}

// Destruct ends the chain as soon as no call is under way: payments that an
// earlier config began still settle.
func (s *shared) Destruct() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	return s.closeIfIdle()
}

func (s *shared) closeIfIdle() error {
	if !s.ended || s.users > 0 || s.chain == nil {
		return nil
	}
	chain := s.chain
	s.chain = nil
	return chain.Close()
}

// start starts a chain at the address, or at the usual one if none is given. If
// the usual one is taken, as by another development chain, any other will do.
func start(listen string, logger *zap.Logger) (*devchain.Chain, error) {
	if listen != "" {
		return devchain.Start(devchain.Options{Listen: listen, Logger: logger})
	}
	chain, err := devchain.Start(devchain.Options{Listen: defaultListen, Logger: logger})
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return devchain.Start(devchain.Options{Logger: logger})
	}
	return chain, err
}

// announce says what runs and how to use it. It is a warning, because nobody must
// believe for a day that sales were made.
func announce(chain *devchain.Chain, logger *zap.Logger) {
	logger.Warn("TEST MONEY: payments go to a development chain in this process, are worth nothing, and are forgotten when it ends",
		zap.String("rpc", chain.RPC()),
		zap.Stringer("chain_id", chain.ChainID()),
		zap.Stringer("genesis", chain.Genesis()),
		zap.Stringer("test_dollar", devchain.Dollar),
		zap.String("payers", `all accounts but the first of the mnemonic "`+devchain.Mnemonic+`" have test dollars`),
		zap.String("fund_another", "curl -X POST "+chain.RPC()+"/fund/<address>"))
}
