package eip712

import (
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"
)

// approvalType is the type hash of EIP-2612's Permit.
var approvalType = crypto.Keccak256Hash([]byte("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"))

// Approval is the message of EIP-2612 by which an owner lets a spender move an
// amount of a token.
type Approval struct {
	Owner, Spender common.Address
	Value, Nonce   uint256.Int
	Deadline       uint64 // Unix seconds
}

// ApprovalDigest returns what the owner's signature is over, in the domain of the
// token.
func (d Domain) ApprovalDigest(a *Approval) [32]byte {
	s := scratchPool.Get().(*scratch)
	defer scratchPool.Put(s)
	s.reset()
	s.word(approvalType)
	s.address(a.Owner)
	s.address(a.Spender)
	s.word(a.Value.Bytes32())
	s.word(a.Nonce.Bytes32())
	s.uint(a.Deadline)
	return s.typed(d, s.sum())
}
