package botauth

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-paywall/caddy-paywall/crawlers/fetch"
)

const (
	wellKnown = "/.well-known/http-message-signatures-directory"
	mediaType = "application/http-message-signatures-directory+json"

	maxDirectory = 64 << 10 // bytes
	maxKeys      = 100      // of a directory
	maxKnown     = 256      // directories
	maxFetches   = 8        // at once

	freshAtLeast = time.Minute
	freshAtMost  = 24 * time.Hour
	freshMostly  = time.Hour          // of a directory that does not say
	failedFor    = time.Minute        // no other try after one that failed
	missingFor   = time.Minute        // nor for a key that is not there
	keptFor      = 7 * 24 * time.Hour // what was there before a directory was down
)

// testKey is the thumbprint of the key in RFC 9421, which everybody has.
const testKey = "poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U"

// directories keeps the keys of domains.
type directories struct {
	client *http.Client
	now    func() time.Time
	life   context.Context
	slots  chan struct{}

	mu    sync.Mutex
	known map[string]*directory
}

// directory is what is known of one domain's.
type directory struct {
	keys    map[string]key
	fetched time.Time // when the keys were
	stale   time.Time // when they are to be fetched again
	tried   time.Time
	failure error         // of the last try
	under   chan struct{} // closed when the fetch that is under way has ended; or nil
}

type key struct {
	public         ed25519.PublicKey
	before, beyond time.Time // when it is not to be used; or zero
}

var (
	errNoKey   = errors.New("the directory has no such key")
	errUnknown = errors.New("the directory is not known yet")
)

// key finds a domain's key. It fetches the directory where that is due, and waits for it
// no longer than the context, but the fetch goes on.
func (d *directories) key(ctx context.Context, domain, id string) (ed25519.PublicKey, error) {
	for {
		found, wait, err := d.look(domain, id)
		if wait == nil || found != nil {
			return found, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, errUnknown
		}
	}
}

// look finds a key, and says what to wait for where it may be found later.
func (d *directories) look(domain, id string) (found ed25519.PublicKey, wait <-chan struct{}, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	entry := d.known[domain]
	if entry == nil {
		if len(d.known) >= maxKnown {
			return nil, nil, errUnknown
		}
		entry = new(directory)
		d.known[domain] = entry
	}
	if entry.keys != nil && now.Sub(entry.fetched) > keptFor {
		entry.keys = nil
	}
	k, there := entry.keys[id]
	due := now.After(entry.stale) && now.Sub(entry.tried) > failedFor ||
		!there && now.Sub(entry.tried) > missingFor
	if due && entry.under == nil && d.life.Err() == nil {
		select {
		case d.slots <- struct{}{}:
			entry.tried, entry.under = now, make(chan struct{})
			go d.fetch(domain, entry)
		default: // so many at once; another request tries again
		}
	}
	switch {
	case there && (now.Before(k.before) || !k.beyond.IsZero() && !now.Before(k.beyond)):
		return nil, nil, errors.New("a key that is not to be used now")
	case there:
		return k.public, nil, nil
	case entry.under != nil:
		return nil, entry.under, nil
	case entry.keys == nil && entry.failure != nil:
		return nil, nil, fmt.Errorf("%w: %w", errUnknown, entry.failure)
	case entry.keys == nil:
		return nil, nil, errUnknown
	}
	return nil, nil, errNoKey
}

// fetch brings a directory up to date. One that cannot be had takes away nothing: an
// operator's outage is no reason to forget his keys.
func (d *directories) fetch(domain string, entry *directory) {
	keys, fresh, err := d.get(domain)
	<-d.slots
	d.mu.Lock()
	defer d.mu.Unlock()
	if entry.failure = err; err == nil {
		now := d.now()
		entry.keys, entry.fetched, entry.stale = keys, now, now.Add(fresh)
	}
	close(entry.under)
	entry.under = nil
}

func (d *directories) get(domain string) (map[string]key, time.Duration, error) {
	document, err := fetch.Get(d.life, d.client, "https://"+domain+wellKnown, mediaType, maxDirectory)
	if err != nil {
		return nil, 0, err
	}
	if document.Type != mediaType {
		return nil, 0, fmt.Errorf("the directory of %s is %q", domain, document.Type)
	}
	keys, err := parseDirectory(document.Body)
	return keys, freshFor(document.Header), err
}

// freshFor is how long a directory may be kept.
func freshFor(header http.Header) time.Duration {
	for directive := range strings.SplitSeq(header.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(strings.ToLower(directive)), "=")
		switch name {
		case "no-store", "no-cache":
			return freshAtLeast
		case "max-age":
			if n, err := strconv.Atoi(strings.Trim(value, `"`)); err == nil {
				return min(max(time.Duration(min(n, 1<<30))*time.Second, freshAtLeast), freshAtMost)
			}
		}
	}
	return freshMostly
}

// parseDirectory reads the Ed25519 keys of a directory. Others are not for us.
func parseDirectory(body []byte) (map[string]key, error) {
	var set struct {
		Keys []struct {
			Kty string  `json:"kty"`
			Crv string  `json:"crv"`
			X   string  `json:"x"`
			Kid string  `json:"kid"`
			Use string  `json:"use"`
			Nbf float64 `json:"nbf"` //nolint:forbidigo // a time
			Exp float64 `json:"exp"` //nolint:forbidigo // a time
		} `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, fmt.Errorf("reading a directory: %w", err)
	}
	if len(set.Keys) == 0 || len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("a directory with %d keys", len(set.Keys))
	}
	keys := map[string]key{}
	for _, k := range set.Keys {
		if k.Kty != "OKP" || k.Crv != "Ed25519" || k.Use != "" && k.Use != "sig" {
			continue
		}
		x, err := base64.RawURLEncoding.Strict().DecodeString(k.X)
		if err != nil || len(x) != ed25519.PublicKeySize {
			continue
		}
		id := Thumbprint(x)
		if k.Kid != "" && isThumbprint(k.Kid) && k.Kid != id {
			continue // mislabelled
		}
		keys[id] = key{public: x, before: unix(k.Nbf), beyond: unix(k.Exp)}
	}
	return keys, nil
}

// unix is the time of a number of seconds. Some directories give milliseconds.
func unix(n float64) time.Time { //nolint:forbidigo // a time
	if n > 1e11 {
		n /= 1000
	}
	if !(n >= 1 && n < 1e11) {
		return time.Time{}
	}
	return time.Unix(int64(n), 0)
}

// Thumbprint names an Ed25519 key (RFC 8037, appendix A.3).
func Thumbprint(public ed25519.PublicKey) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + base64.RawURLEncoding.EncodeToString(public) + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
