package soak

import (
	"context"
	"crypto/ecdsa"
	"math/big"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethclient"

	"github.com/caddy-paywall/caddy-paywall/devchain"
)

var (
	topicTransfer = crypto.Keccak256Hash([]byte("Transfer(address,address,uint256)"))
	topicUsed     = crypto.Keccak256Hash([]byte("AuthorizationUsed(address,bytes32)"))
)

// money is the chain as the tests look at it: the only judge of what was paid.
type money struct {
	*devchain.Chain
	client *ethclient.Client
	payee  common.Address // nobody else pays to it
}

func newMoney(t testing.TB) *money {
	t.Helper()
	chain, err := devchain.Start(devchain.Options{BlockEvery: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	client, err := ethclient.Dial(chain.RPC())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	key, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return &money{chain, client, crypto.PubkeyToAddress(key.PublicKey)}
}

// gasKeys is how many of the first accounts pay the gas of the gateway's own
// facilitator.
const gasKeys = 2

// payers are the keys of the accounts that have test dollars. The first accounts
// pay the gas of the gateway's own facilitator and the last one that of ours.
func (m *money) payers() []*ecdsa.PrivateKey {
	var keys []*ecdsa.PrivateKey
	all := m.Accounts()
	for _, a := range all[gasKeys : len(all)-1] {
		keys = append(keys, a.Key())
	}
	return keys
}

// transfer is one payment on the chain.
type transfer struct {
	tx    common.Hash
	from  common.Address
	value *big.Int
}

// transfers are all payments to the payee, by the nonce of what was signed.
func (m *money) transfers(t testing.TB) map[common.Hash]transfer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	logs, err := m.client.FilterLogs(ctx, ethereum.FilterQuery{
		FromBlock: new(big.Int), Addresses: []common.Address{devchain.Dollar},
		Topics: [][]common.Hash{{topicTransfer, topicUsed}},
	})
	if err != nil {
		t.Fatalf("reading the chain: %v", err)
	}
	// The token writes the two events of a payment one after the other; several payments
	// may be in one transaction.
	byNonce := make(map[common.Hash]transfer)
	transfers := 0
	for i, l := range logs {
		if l.Topics[0] != topicTransfer || common.BytesToAddress(l.Topics[2][:]) != m.payee {
			continue
		}
		transfers++
		if i == 0 || logs[i-1].Topics[0] != topicUsed || logs[i-1].TxHash != l.TxHash || logs[i-1].Topics[1] != l.Topics[1] {
			t.Errorf("transaction %s pays without an authorization", l.TxHash)
			continue
		}
		byNonce[logs[i-1].Topics[2]] = transfer{l.TxHash, common.BytesToAddress(l.Topics[1][:]), new(big.Int).SetBytes(l.Data)}
	}
	if len(byNonce) != transfers {
		t.Errorf("%d transfers to the payee, and %d authorizations used for them", transfers, len(byNonce))
	}
	return byNonce
}

// used asks the token whether an authorization has moved money.
func (m *money) used(ctx context.Context, from common.Address, nonce common.Hash) (bool, error) {
	data := crypto.Keccak256([]byte("authorizationState(address,bytes32)"))[:4]
	data = append(data, common.LeftPadBytes(from[:], 32)...)
	data = append(data, nonce[:]...)
	answer, err := m.client.CallContract(ctx, ethereum.CallMsg{To: &devchain.Dollar, Data: data}, nil)
	return err == nil && new(big.Int).SetBytes(answer).Sign() != 0, err
}
