package evm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/pricing/money"
)

// TestConfirmationsThatCannotBeReached: what would take longer than a settlement is
// waited for is refused at load, with the highest number that would not.
func TestConfirmationsThatCannotBeReached(t *testing.T) {
	key := keyFile(t, signerKey)
	for _, tt := range []struct {
		network string
		most    int
	}{
		{"ethereum", 9}, {"sepolia", 9}, {"gnosis", 23}, {"base", 59}, {"eip155:8453", 59}, {"arbitrum", 100}, {"eip155:5", 100},
	} {
		t.Run(tt.network, func(t *testing.T) {
			for n, want := range map[int]string{1: "", tt.most: "", tt.most + 1: fmt.Sprint(tt.most)} {
				file := fmt.Sprintf("evm {\n network %s {\n rpc https://a.example\n signer {env.K}\n confirmations %d\n }\n}", tt.network, n)
				f := &Facilitator{Networks: map[string]*Network{tt.network: {RPC: []string{"https://a.example"}, Signers: []string{key}, Confirmations: n}}}
				for form, err := range map[string]error{
					"Caddyfile": new(Facilitator).UnmarshalCaddyfile(caddyfile.NewTestDispenser(file)),
					"JSON":      provisionOnce(f),
				} {
					if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
						t.Errorf("%s, %d: error %v, want %q", form, n, err, want)
					}
				}
			}
		})
	}
	for id := range blockTimes {
		if n, ok := money.FindNetwork(fmt.Sprintf("eip155:%d", id)); !ok || n.Name == n.CAIP2 {
			t.Errorf("nobody knows chain %d by a name", id)
		}
	}
}

func provisionOnce(f *Facilitator) error {
	f.logger = zap.NewNop()
	defer func() { _ = f.Cleanup() }()
	return f.provision()
}
