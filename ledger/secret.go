package ledger

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
)

// Secrets is implemented by ledgers that have a secret.
type Secrets interface {
	// Secret returns 32 random bytes that all who share the ledger get, and that last
	// as long as its payments.
	Secret(ctx context.Context) ([]byte, error)
}

// DeriveSecret makes the secret of a store that has a random key for something else.
func DeriveSecret(key []byte) []byte {
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte("paywall secret"))
	return mac.Sum(nil)
}
