package ledger

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
)

// hashedQuery is what HashQuery makes of a query.
var hashedQuery = regexp.MustCompile(`^sha256=[0-9a-f]{32}$`)

// HashQuery returns the URL with a hash in place of its query, keyed, so that
// equal ones can be told and none can be guessed without the key. Stores that
// are told to do so replace the URL of finished payments by it; List then finds
// them by the URL as it was. A query that is hashed already stays as it is: a
// delivered payment is written again after a reorganisation.
func HashQuery(key []byte, url string) string {
	path, query, ok := strings.Cut(url, "?")
	if !ok || query == "" || hashedQuery.MatchString(query) {
		return url
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(query))
	return path + "?sha256=" + hex.EncodeToString(mac.Sum(nil)[:16])
}
