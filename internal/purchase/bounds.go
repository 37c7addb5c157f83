package purchase

import (
	"time"

	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Times and numbers of a payment. Those that tests may shorten are fields of the Desk too.
const (
	// holdWithin is how long a payment may be claimed without being settled: who
	// holds it for longer has an upstream that does not answer.
	holdWithin = offer.MaxTimeout
	// minLife is how long an authorization must still live when we settle:
	// settlement has to reach a block before it ends.
	minLife = 20 * time.Second
	// maxLife is the longest authorization we take: some wallets sign a day.
	maxLife = ledger.MaxLife
	// answerWithin is how long a payer waits for a settlement before being told
	// that it is pending: below the usual time-outs of clients.
	answerWithin = 15 * time.Second
	// keepWithoutEnd is how long a payment is remembered whose authorization does
	// not say when it ends: the chain alone refuses it then.
	keepWithoutEnd = ledger.KeepWithoutEnd
	// keepRequest is how long at least what was asked of a facilitator is kept: a
	// reorganisation of the chain may make it necessary to ask again.
	keepRequest = time.Hour
	// maxRuns bounds how often one payment starts the upstream.
	maxRuns = 20
	// maxHeads is how many of them can be heads.
	maxHeads = 10
)
