package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	// supportedTries is how often /supported is asked when the facilitator wants
	// to be asked later.
	supportedTries = 4
	// maxBackoff bounds each pause between them.
	maxBackoff = 30 * time.Second
)

// Supported implements facilitator.Facilitator. When the facilitator answers 429
// it is asked again up to three times, after the pause that it asks for.
func (f *Facilitator) Supported(ctx context.Context) (x402.Supported, error) {
	backoff := time.Second
	for try := 1; ; try++ {
		a, err := f.callSupported(ctx)
		if err != nil {
			return x402.Supported{}, failure("supported", err)
		}
		if a.status != http.StatusTooManyRequests || try == supportedTries {
			return f.judgeSupported(a)
		}
		pause := backoff
		if a.saysWhen {
			pause = a.retryAfter
		}
		backoff *= 2
		if err := f.sleep(ctx, min(pause, maxBackoff)); err != nil {
			return x402.Supported{}, failure("supported", fmt.Errorf("status %d, then %w", a.status, err))
		}
	}
}

func (f *Facilitator) callSupported(ctx context.Context) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, supportedTimeout)
	defer cancel()
	return f.call(ctx, "supported", nil, 0, maxSupported)
}

func (f *Facilitator) judgeSupported(a answer) (x402.Supported, error) {
	if !a.ok() {
		return x402.Supported{}, f.statusError("supported", a)
	}
	got, err := x402.ParseSupported(a.body)
	if err != nil {
		return x402.Supported{}, f.nonsense("supported", a, f.clean(err))
	}
	f.shared.supported.Store(&got)
	return got, nil
}

// body makes the body of a call about a payment, and says in which version of
// the protocol. A version 1 payment goes as it came to a facilitator that lists
// version 1 for its network; else it is translated, since what was signed is the
// same in both.
func (f *Facilitator) body(r facilitator.Request) ([]byte, int, error) {
	if f.shared == nil {
		return nil, 0, errNotProvisioned
	}
	if r.Payment == nil {
		return nil, 0, errors.New("request without a payment")
	}
	version := x402.V2
	if r.Payment.Version == x402.V1 && speaksV1(f.shared.supported.Load(), r.Requirement) {
		version = x402.V1
	}
	b, err := x402.FacilitatorBody(r.Payment, r.Requirement, r.Resource, version)
	if err != nil {
		return nil, 0, fmt.Errorf("making the request: %w", f.clean(err))
	}
	return b, version, nil
}

// speaksV1 reports whether a facilitator lists version 1 for what r asks.
func speaksV1(s *x402.Supported, r x402.Requirement) bool {
	name, _ := x402.LegacyNetwork(r.Network)
	if s == nil || name == "" {
		return false
	}
	for _, k := range s.Kinds {
		if k.X402Version == x402.V1 && k.Scheme == r.Scheme && (k.Network == name || k.Network == r.Network) {
			return true
		}
	}
	return false
}
