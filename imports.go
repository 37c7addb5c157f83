package paywall

// The guests that come with the paywall: one import path brings all.
import (
	_ "github.com/caddy-paywall/caddy-paywall/commands"
	_ "github.com/caddy-paywall/caddy-paywall/facilitator/evm"
	_ "github.com/caddy-paywall/caddy-paywall/facilitator/remote"
	_ "github.com/caddy-paywall/caddy-paywall/ledger/memory"
	_ "github.com/caddy-paywall/caddy-paywall/ledger/postgres"
	_ "github.com/caddy-paywall/caddy-paywall/ledger/sqlite"
)
