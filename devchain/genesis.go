package devchain

import (
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/params"
)

// ChainID is that of Base Sepolia, since the official clients pay only with assets
// that they know.
const ChainID = 84532

// Where the contracts are: for each the address that it has on Base Sepolia, but for
// Tether, which is ours.
var (
	// Dollar is the test dollar, where USDC is.
	Dollar = common.HexToAddress("0x036CbD53842c5426634e7929541eC2318f3dCF7e")
	// Tether is a second token, which has nothing but ERC-20: it can be paid with
	// through Permit2 only, after an approval.
	Tether = common.HexToAddress("0xeED520980fC7C7B4eB379B96d61CEdea2423005a")
	// Multicall3 answers several calls at once.
	Multicall3 = common.HexToAddress("0xcA11bde05977b3631167028862bE2a173976CA11")
	// Permit2 moves any token by signature.
	Permit2 = common.HexToAddress("0x000000000022D473030F116dDEE9F6B43aC78BA3")
	// ExactPermit2Proxy is whom payers of the scheme exact sign Permit2 messages for.
	ExactPermit2Proxy = common.HexToAddress("0x402085c248EeA27D92E8b30b2C58ed07f9E20001")
	// UptoPermit2Proxy is the same for the scheme upto.
	UptoPermit2Proxy = common.HexToAddress("0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002")
)

const (
	// gasLimit of a block: room for about 900 payments.
	gasLimit = 60_000_000
	// baseFee is what Base asks, about; with a fee of Ethereum's the gas of a trial
	// would look absurd.
	baseFee = 1_000_000
	// dollarsEach is what every payer begins with of each token, in atomic units:
	// 10,000 dollars.
	dollarsEach = 10_000 * 1_000_000
)

// etherEach is what every account begins with, 1,000 ether, and ownerEther what
// the owner of the test dollar gives away of.
var (
	etherEach  = new(big.Int).Mul(big.NewInt(1_000), big.NewInt(params.Ether))
	ownerEther = new(big.Int).Mul(big.NewInt(1_000_000_000), big.NewInt(params.Ether))
)

// label is in the header of every block, where anyone who looks meets it.
const label = "TEST MONEY"

//go:embed contracts/code.json
var codeJSON []byte

// contractCode is the runtime code of the contracts by name; contracts/build.mjs
// makes the file.
func contractCode() (map[string]hexutil.Bytes, error) {
	var code map[string]hexutil.Bytes
	err := json.Unmarshal(codeJSON, &code)
	return code, err
}

// newGenesis is the first block. No two chains have the same: the extra data is
// random, so that a ledger which remembers one chain does not take another, in
// which nothing has been paid yet, for it.
func newGenesis(now time.Time, accounts []Account, owner Account) (*core.Genesis, error) {
	alloc, err := newAlloc(accounts, owner)
	if err != nil {
		return nil, err
	}
	extra := append([]byte(label+" "), rand.Text()...)
	return &core.Genesis{
		Config: ChainRules(),
		// In the past, so that the first blocks need not wait.
		Timestamp:  uint64(now.Unix() - 2), //nolint:gosec // after 1970
		ExtraData:  extra[:params.MaximumExtraDataSize],
		GasLimit:   gasLimit,
		BaseFee:    big.NewInt(baseFee),
		Difficulty: new(big.Int),
		Alloc:      alloc,
	}, nil
}

// ChainRules are those of Osaka from the first block on. The forks after it are
// off: go-ethereum's own development rules have them on, and one of them prices
// state so that a payment costs 167,000 gas instead of 65,000.
func ChainRules() *params.ChainConfig {
	rules := *params.AllDevChainProtocolChanges
	rules.ChainID = big.NewInt(ChainID)
	rules.BogotaTime = nil
	rules.AmsterdamTime = nil
	return &rules
}

// newAlloc is the state before the first block.
func newAlloc(accounts []Account, owner Account) (types.GenesisAlloc, error) {
	code, err := contractCode()
	if err != nil {
		return nil, fmt.Errorf("contracts: %w", err)
	}
	alloc := core.SystemContractAllocs()
	alloc[owner.Address] = types.Account{Balance: ownerEther}
	for _, a := range accounts {
		alloc[a.Address] = types.Account{Balance: etherEach}
	}
	contracts := map[common.Address]types.Account{
		Multicall3:        {Code: code["Multicall3"]},
		Permit2:           {Code: code["Permit2"]},
		ExactPermit2Proxy: {Code: code["ExactPermit2Proxy"]},
		UptoPermit2Proxy:  {Code: code["UptoPermit2Proxy"]},
		Dollar:            {Code: code["TestDollar"], Storage: tokenStorage(accounts, owner)},
		Tether:            {Code: code["TestTether"], Storage: tokenStorage(accounts, owner)},
	}
	for address, contract := range contracts {
		if len(contract.Code) == 0 {
			return nil, fmt.Errorf("contracts: no code for %s", address)
		}
		contract.Balance = new(big.Int)
		contract.Nonce = 1 // as after a deployment
		contracts[address] = contract
	}
	maps.Copy(alloc, contracts)
	return alloc, nil
}

// The storage of the tokens, as their sources describe it.
const (
	slotOwner       = 0
	slotTotalSupply = 1
	slotBalanceOf   = 2
)

// tokenStorage is what the constructor and the first mints would have written.
func tokenStorage(accounts []Account, owner Account) map[common.Hash]common.Hash {
	storage := map[common.Hash]common.Hash{
		slot(slotOwner): common.BytesToHash(owner.Address[:]),
	}
	supply := new(big.Int)
	// The first account pays for gas, as a facilitator; the others pay for goods.
	for _, a := range accounts[1:] {
		each := big.NewInt(dollarsEach)
		storage[balanceSlot(a.Address)] = common.BigToHash(each)
		supply.Add(supply, each)
	}
	storage[slot(slotTotalSupply)] = common.BigToHash(supply)
	return storage
}

// balanceSlot is where Solidity keeps the entry of an account in a mapping.
func balanceSlot(account common.Address) common.Hash {
	place := slot(slotBalanceOf)
	return crypto.Keccak256Hash(common.LeftPadBytes(account[:], 32), place[:])
}

func slot(n int64) common.Hash { return common.BigToHash(big.NewInt(n)) }
