package botauth

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/caddy-paywall/caddy-paywall/crawlers/recent"
)

// Verifier says by whom requests are signed.
type Verifier struct {
	directories *directories
	nonces      nonces
	now         func() time.Time
	longest     time.Duration
	testKeys    bool // as no product does
}

// New makes a verifier, which fetches directories with a client until its life ends.
func New(life context.Context, client *http.Client) *Verifier {
	v := &Verifier{now: time.Now, longest: longest, nonces: nonces{recent.NewMap[[16]byte, usedNonce](maxNonces)}}
	v.directories = &directories{
		client: client, life: life, slots: make(chan struct{}, maxFetches), known: map[string]*directory{},
		now: func() time.Time { return v.now() },
	}
	return v
}

// Verify says whose key has signed a request: the domain of its directory. Only the
// directories of domains that are wanted are looked at, since a stranger must not have us
// fetch what he likes. It waits no longer than the context for a directory that is not
// known yet.
func (v *Verifier) Verify(ctx context.Context, m *Message, from netip.Addr, wanted func(domain string) bool) (domain string, err error) {
	now := v.now()
	signatures, err := signaturesOf(m, now, v.longest)
	if err != nil {
		return "", err
	}
	var errs []error
	for _, s := range signatures {
		if err := v.verify(ctx, &s, m, from, now, wanted); err != nil {
			errs = append(errs, err)
			continue
		}
		return s.domain, nil
	}
	return "", errors.Join(errs...)
}

func (v *Verifier) verify(ctx context.Context, s *signature, m *Message, from netip.Addr, now time.Time, wanted func(string) bool) error {
	if !wanted(s.domain) {
		return fmt.Errorf("%s is not known", s.domain)
	}
	if s.keyID == testKey && !v.testKeys {
		return errors.New("signed with a key that everybody has")
	}
	public, err := v.directories.key(ctx, s.domain, s.keyID)
	if err != nil {
		return err
	}
	base, err := s.base(m)
	if err != nil {
		return err
	}
	if !ed25519.Verify(public, base, s.bytes) {
		return errors.New("the signature is false")
	}
	if s.nonce != "" && !v.nonces.use(s, from, now) {
		return errors.New("a nonce that somebody else has used")
	}
	return nil
}

// nonces remembers which were used, and from where: who asks again with the same headers,
// as a client does that pays, comes from the same address; who has read them comes from
// another one.
type nonces struct {
	used *recent.Map[[16]byte, usedNonce]
}

type usedNonce struct {
	from    netip.Addr
	expires time.Time
}

// maxNonces is how many of the latest are remembered at least.
const maxNonces = 32 << 10

// use says whether a nonce is new, or used from the same address before.
func (n nonces) use(s *signature, from netip.Addr, now time.Time) bool {
	sum := sha256.Sum256([]byte(s.domain + " " + s.keyID + " " + s.nonce))
	before, used := n.used.PutUnless([16]byte(sum[:16]), usedNonce{from: from, expires: s.expires.Add(skew)},
		func(u usedNonce) bool { return now.Before(u.expires) })
	return !used || before.from == from
}
