// Package eip712 tells who signed a payment on an EVM chain. It makes the
// digests of typed data (EIP-712) that payers sign, and recovers their
// addresses. It asks no node, so it can only speak of ordinary accounts:
// contract wallets sign otherwise.
//
// The digests are made by hand: typed data of a few fixed types needs no
// description at run time, which costs ten times as much.
package eip712

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// ErrNoDomain is for a requirement that does not tell which domain its asset
// signs in: payers cannot pay it either.
var ErrNoDomain = errors.New("no EIP-712 domain in the requirement")

// Domain is the domain separator of a token: what makes a signature count for
// one contract on one chain and nowhere else.
type Domain [32]byte

var domainType = crypto.Keccak256Hash([]byte("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"))

// NewDomain returns the domain separator of the contract. Name and version are
// hashed as they are, byte by byte, as contracts do.
func NewDomain(name, version string, chainID uint64, contract common.Address) Domain {
	s := scratchPool.Get().(*scratch)
	defer scratchPool.Put(s)
	hashedName := crypto.Keccak256Hash([]byte(name))
	hashedVersion := crypto.Keccak256Hash([]byte(version))
	s.reset()
	s.word(domainType)
	s.word(hashedName)
	s.word(hashedVersion)
	s.uint(chainID)
	s.address(contract)
	return Domain(s.sum())
}

// DomainOf returns the domain of a requirement's asset, from its extra.name and
// extra.version. The error is ErrNoDomain. Domains are kept, because a seller
// has few assets and the domain of one costs more than a payment's digest.
func DomainOf(r x402.Requirement) (Domain, error) {
	if d, ok := (*domains.Load())[domainKey{r.Network, r.Asset, string(r.Extra)}]; ok {
		return d, nil
	}
	d, err := domainOf(r)
	if err != nil {
		return Domain{}, fmt.Errorf("%w: %w", ErrNoDomain, err)
	}
	keep(domainKey{r.Network, r.Asset, string(r.Extra)}, d)
	return d, nil
}

func domainOf(r x402.Requirement) (Domain, error) {
	var extra struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	if err := json.Unmarshal(r.Extra, &extra); err != nil {
		return Domain{}, errors.New("extra is no object, or its name or version is no text")
	}
	if extra.Name == "" || extra.Version == "" {
		return Domain{}, errors.New("extra.name or extra.version is missing")
	}
	id, ok := chainOf(r.Network)
	if !ok {
		return Domain{}, errors.New("the network is no EVM chain")
	}
	asset, ok := parseAddress(r.Asset)
	if !ok {
		return Domain{}, errors.New("the asset is no address")
	}
	return NewDomain(extra.Name, extra.Version, id, asset), nil
}

// maxDomains bounds the domains that are kept. Requirements are the seller's
// own; the bound is for who passes on those of others.
const maxDomains = 1024

type domainKey struct{ network, asset, extra string }

// domains is replaced as a whole: it is read with every payment, and written
// with every new asset.
var (
	domains     atomic.Pointer[map[domainKey]Domain]
	domainsLock sync.Mutex
)

func init() { domains.Store(&map[domainKey]Domain{}) }

func keep(k domainKey, d Domain) {
	domainsLock.Lock()
	defer domainsLock.Unlock()
	old := *domains.Load()
	next := make(map[domainKey]Domain, len(old)+1)
	if len(old) < maxDomains {
		maps.Copy(next, old)
	}
	next[k] = d
	domains.Store(&next)
}
