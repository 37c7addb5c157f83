package ledgertest

import (
	"bytes"
	"errors"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// testChains: the first chain that a network's name stands for is the one that it
// stands for ever after.
func testChains(s *suite) {
	l, ok := s.Ledger.(ledger.Chains)
	if !ok {
		s.Skip("this ledger does not know chains")
	}
	for _, call := range []struct {
		network, hash string
		want          error
	}{
		{"eip155:84532", "0xa", nil},
		{"eip155:84532", "0xa", nil},
		{"eip155:8453", "0xb", nil},
		{"eip155:84532", "0xb", ledger.ErrGenesis},
		{"eip155:84532", "0xa", nil},
	} {
		if err := l.RememberGenesis(s.Context(), call.network, call.hash); !errors.Is(err, call.want) {
			s.Errorf("%s begins with %s: %v, want %v", call.network, call.hash, err, call.want)
		}
	}
}

// testSecret: the secret is the same for everybody, and not another ledger's.
func testSecret(s *suite) {
	l, ok := s.Ledger.(ledger.Secrets)
	if !ok {
		s.Skip("this ledger has no secret")
	}
	first, err := l.Secret(s.Context())
	if err != nil || len(first) < 16 {
		s.Fatalf("%d bytes, %v", len(first), err)
	}
	again, err := l.Secret(s.Context())
	if err != nil || !bytes.Equal(first, again) {
		s.Errorf("another one at the second time, %v", err)
	}
}
