package eip712

import (
	"math/big"
	"strconv"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/signer/core/apitypes"
	"github.com/holiman/uint256"

	"github.com/caddy-paywall/caddy-paywall/internal/typeddata"
)

// TestApprovalDigest compares with go-ethereum's general encoder.
func TestApprovalDigest(t *testing.T) {
	token := common.HexToAddress("0x036CbD53842c5426634e7929541eC2318f3dCF7e")
	most := *new(uint256.Int).SetAllOne()
	for _, a := range []Approval{
		{Owner: common.HexToAddress("0x01"), Spender: Permit2},
		{Owner: token, Spender: Permit2, Value: *uint256.NewInt(10_000), Nonce: *uint256.NewInt(7), Deadline: 1_761_608_000},
		{Owner: token, Spender: token, Value: most, Nonce: most, Deadline: 1<<64 - 1},
	} {
		data := typeddata.Permit(typeddata.Token("USDC", "2", big.NewInt(84532), token.Hex()), apitypes.TypedDataMessage{
			"owner": a.Owner.Hex(), "spender": a.Spender.Hex(), "value": a.Value.Dec(), "nonce": a.Nonce.Dec(), "deadline": strconv.FormatUint(a.Deadline, 10),
		})
		want, _, err := apitypes.TypedDataAndHash(data)
		if err != nil {
			t.Fatal(err)
		}
		if got := NewDomain("USDC", "2", 84532, token).ApprovalDigest(&a); got != [32]byte(want) {
			t.Errorf("%+v: %x, want %x", a, got, want)
		}
	}
}
