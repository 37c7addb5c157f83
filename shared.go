package paywall

import (
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-paywall/caddy-paywall/internal/admission"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/internal/purchase"
	"github.com/caddy-paywall/caddy-paywall/internal/settlement"
)

// shared is what all configs of a process share, since claims and settlements outlive
// their config: the bounds, what was offered and said lately, and what is under way.
type shared struct {
	admission *admission.Control
	offered   *offer.History
	purchases *purchase.Shared

	unrecorded settlement.Unrecorded

	// inDoubt is what the reconciler saw in its last round, and owed what countOwed did.
	inDoubt, owed atomic.Pointer[metrics.Count]
}

func newShared() *shared {
	return &shared{
		admission: admission.New(),
		offered:   offer.NewHistory(),
		purchases: purchase.NewShared(),
	}
}

// Destruct implements caddy.Destructor.
func (*shared) Destruct() error { return nil }

// sharedStates has one entry, while a config with paywalls is loaded: a reload provisions
// the new config before the old one goes.
var sharedStates = caddy.NewUsagePool()

const sharedKey = "paywall"

func takeShared() (*shared, error) {
	s, _, err := sharedStates.LoadOrNew(sharedKey, func() (caddy.Destructor, error) { return newShared(), nil })
	if err != nil {
		return nil, err
	}
	return s.(*shared), nil
}

// currentShared is the shared value while a config with paywalls is loaded, or nil.
func currentShared() (s *shared) {
	sharedStates.Range(func(_, v any) bool {
		s = v.(*shared)
		return true
	})
	return s
}
