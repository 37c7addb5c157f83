package main

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
	"github.com/ethereum/go-ethereum/ethclient"
)

// payerAccount is the account of the well-known test mnemonic that pays.
const payerAccount = 1

// chain is the development chain, seen from outside as any client sees it.
type chain struct{ *ethclient.Client }

// dial waits until the chain answers: it starts when Caddy first needs it.
func dial(ctx context.Context, url string) (*chain, error) {
	c, err := ethclient.DialContext(ctx, url)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if _, err = c.ChainID(ctx); err == nil {
			return &chain{c}, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// balance asks an ERC-20 token what an account has.
func (c *chain) balance(ctx context.Context, token, account common.Address) (*big.Int, error) {
	data := append(crypto.Keccak256([]byte("balanceOf(address)"))[:4], common.LeftPadBytes(account.Bytes(), 32)...)
	out, err := c.CallContract(ctx, ethereum.CallMsg{To: &token, Data: data}, nil)
	if err != nil {
		return nil, err
	}
	if len(out) != 32 {
		return nil, fmt.Errorf("an answer of %d bytes", len(out))
	}
	return new(big.Int).SetBytes(out), nil
}

// settled returns the block of a transaction that succeeded.
func (c *chain) settled(ctx context.Context, hash string) (uint64, error) {
	receipt, err := c.TransactionReceipt(ctx, common.HexToHash(hash))
	if err != nil {
		return 0, err
	}
	if receipt.Status != types.ReceiptStatusSuccessful {
		return 0, errors.New("it was reverted")
	}
	return receipt.BlockNumber.Uint64(), nil
}
