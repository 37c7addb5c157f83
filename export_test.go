package paywall

import "github.com/caddy-paywall/caddy-paywall/routes"

// SetRouteFindings replaces what Start does with the findings of the routes, and
// returns what restores it: the tests of the routes show what each of them is
// refused for, which nobody else may load.
func SetRouteFindings(change func([]routes.Finding) []routes.Finding) (restore func()) {
	s, err := takeShared()
	if err != nil {
		panic(err)
	}
	s.findings = change
	return func() {
		s.findings = nil
		_, _ = sharedStates.Delete(sharedKey)
	}
}
