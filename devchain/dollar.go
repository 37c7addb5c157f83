package devchain

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/ethereum/go-ethereum"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/params"
)

const (
	// ownerGas is enough for everything that the owner of the test dollar can do.
	ownerGas = 200_000
	// fundDollars is what Fund gives, in atomic units.
	fundDollars = 100 * 1_000_000
	// receiptEvery is how often a receipt is asked for.
	receiptEvery = 10 * time.Millisecond
)

// Balance returns how many test dollars an account has, in atomic units: a million
// of them is one dollar.
func (c *Chain) Balance(account common.Address) (*big.Int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answer, err := c.client.CallContract(ctx, ethereum.CallMsg{
		To:   &Dollar,
		Data: calldata("balanceOf(address)", account[:]),
	}, nil)
	if err != nil {
		return nil, err
	}
	return new(big.Int).SetBytes(answer), nil
}

// Mint gives an account test dollars, in atomic units. Like all methods that
// change the state, it returns when the block with the change is sealed.
func (c *Chain) Mint(ctx context.Context, to common.Address, amount *big.Int) error {
	return c.asOwner(ctx, onDollar("mint(address,uint256)", to[:], amount.Bytes()))
}

// Fund gives an account what a trial needs: 100 test dollars, and one ether for
// the gas of what is not a payment.
func (c *Chain) Fund(ctx context.Context, account common.Address) error {
	return c.asOwner(ctx,
		call{to: account, value: big.NewInt(params.Ether)},
		onDollar("mint(address,uint256)", account[:], big.NewInt(fundDollars).Bytes()))
}

// Pause makes the test dollar refuse every transfer, until Unpause.
func (c *Chain) Pause(ctx context.Context) error {
	return c.asOwner(ctx, onDollar("pause()"))
}

// Unpause ends Pause.
func (c *Chain) Unpause(ctx context.Context) error {
	return c.asOwner(ctx, onDollar("unpause()"))
}

// Blacklist makes the test dollar refuse every transfer from and to an account.
func (c *Chain) Blacklist(ctx context.Context, account common.Address) error {
	return c.asOwner(ctx, onDollar("blacklist(address)", account[:]))
}

// Unblacklist ends Blacklist.
func (c *Chain) Unblacklist(ctx context.Context, account common.Address) error {
	return c.asOwner(ctx, onDollar("unBlacklist(address)", account[:]))
}

// call is what a transaction does.
type call struct {
	to    common.Address
	value *big.Int
	data  []byte
}

func onDollar(signature string, words ...[]byte) call {
	return call{to: Dollar, data: calldata(signature, words...)}
}

// asOwner sends transactions of the owner of the test dollar and waits for them.
// The owner is none of the listed accounts, so that these never take a nonce that
// a facilitator has planned to use.
func (c *Chain) asOwner(ctx context.Context, calls ...call) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	nonce, err := c.client.PendingNonceAt(ctx, c.owner.Address)
	if err != nil {
		return err
	}
	signer := types.LatestSignerForChainID(c.ChainID())
	sent := make([]common.Hash, 0, len(calls))
	for _, what := range calls {
		tx, err := types.SignNewTx(c.owner.key, signer, &types.DynamicFeeTx{
			ChainID:   c.ChainID(),
			Nonce:     nonce,
			GasTipCap: big.NewInt(baseFee),
			GasFeeCap: big.NewInt(1000 * baseFee), // above what busy blocks make of the base fee
			Gas:       ownerGas,
			To:        &what.to,
			Value:     what.value,
			Data:      what.data,
		})
		if err != nil {
			return err
		}
		if err := c.client.SendTransaction(ctx, tx); err != nil {
			return err
		}
		sent = append(sent, tx.Hash())
		nonce++
	}
	for _, tx := range sent {
		receipt, err := c.receipt(ctx, tx)
		if err != nil {
			return err
		}
		if receipt.Status != types.ReceiptStatusSuccessful {
			return fmt.Errorf("transaction %s of the owner of the test dollar was reverted", tx)
		}
	}
	return nil
}

// receipt waits for the receipt of a transaction.
func (c *Chain) receipt(ctx context.Context, tx common.Hash) (*types.Receipt, error) {
	tick := time.NewTicker(receiptEvery)
	defer tick.Stop()
	for {
		receipt, err := c.client.TransactionReceipt(ctx, tx)
		if err == nil || !errors.Is(err, ethereum.NotFound) {
			return receipt, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// calldata encodes a call whose arguments are all one word long.
func calldata(signature string, words ...[]byte) []byte {
	data := crypto.Keccak256([]byte(signature))[:4]
	for _, word := range words {
		data = append(data, common.LeftPadBytes(word, 32)...)
	}
	return data
}
