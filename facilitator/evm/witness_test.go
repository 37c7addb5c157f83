package evm

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/facilitator/evm/chain"
)

// before is the block that was made so many seconds before now.
func before(seconds int64) uint64 { return uint64(pastHead - seconds/blockTime) }

// say spells a proof.
func say(p facilitator.Proof, err error) string {
	switch {
	case err != nil:
		return "error"
	case p.Evidence == facilitator.Moved && p.Transaction == pastTx.Hex() && p.Reason == "":
		return "moved"
	case p.Evidence == facilitator.Void && p.Transaction == "":
		return "void " + p.Reason
	case p == facilitator.Proof{}:
		return "open"
	}
	return "nonsense"
}

func TestWitness(t *testing.T) {
	r, p, ends, own := paying(t)
	seller, thief := p.To, common.HexToAddress(signerAddress)
	value := p.Value.Uint64()
	events := func(list ...chain.Event) []chain.Event { return list }
	foreign := useOf(p)
	foreign.Topics = []common.Hash{usedTopic, chain.AddressTopic(thief), p.Nonce}
	otherNonce := useOf(p)
	otherNonce.Topics = []common.Hash{usedTopic, chain.AddressTopic(p.From), {9}}
	otherToken := useOf(p)
	otherToken.Address = thief
	taken := useOf(p)
	taken.Removed = true
	elsewhere := transferOf(p, seller, value)
	elsewhere.Address = thief

	const (
		expired = "void invalid_exact_evm_payload_authorization_valid_before"
		used    = "void invalid_exact_evm_nonce_already_used"
	)
	// Now is ten minutes after the end and our claim was 15 minutes ago, if
	// nothing else is said.
	tests := map[string]struct {
		past    past
		now     int64 // seconds after the end
		since   int64 // seconds before now
		want    string
		atLeast int // searches
	}{
		"moved":                    {past: past{state: "used", events: own, block: before(880)}, want: "moved"},
		"moved, state is not told": {past: past{events: own, block: before(880)}, want: "moved"},
		"moved, state is nonsense": {past: past{state: "nonsense", events: own, block: before(880)}, want: "moved"},
		"moved before the end":     {past: past{state: "used", events: own, block: before(40)}, now: -100, since: 60, want: "moved"},
		"moved with our claim":     {past: past{state: "used", events: own, block: before(900)}, want: "moved"},
		"clocks differ a little":   {past: past{state: "used", events: own, block: before(904)}, want: "moved"},
		"moved before our claim":   {past: past{state: "used", events: own, block: before(906)}, want: "open"},
		"moved an hour before":     {past: past{state: "used", events: own, block: before(4500)}, want: "open"},
		"two payments at once": {past: past{state: "used", block: before(880), events: append(events(
			otherNonce, transferOf(p, seller, value)), own...)}, want: "moved"},
		"other token's transfer between": {past: past{state: "used", block: before(880), events: events(useOf(p), elsewhere, transferOf(p, seller, value))}, want: "moved"},
		"confirmed":                      {past: past{state: "used", events: own, block: pastHead - 2}, want: "moved"},
		"not confirmed":                  {past: past{state: "used", events: own, block: pastHead - 1}, want: "open"},
		"reverted":                       {past: past{state: "used", events: own, block: before(880), reverted: true}, want: "open"},
		"no receipt":                     {past: past{state: "used", events: own, block: before(880), lost: true}, want: "open"},
		"receipt of another block":       {past: past{state: "used", events: own, block: before(880), reorged: true}, want: "open"},
		"block is missing":               {past: past{state: "used", events: own, block: before(880), pruned: before(870)}, want: "error"},
		"no claim":                       {past: past{state: "used", events: own, block: before(880)}, since: -1, want: "open"},

		"one transfer for two":     {past: past{state: "used", block: before(880), events: events(useOf(p), transferOf(p, p.From, 0), otherNonce, transferOf(p, seller, value))}, want: "open"},
		"the transfer is first":    {past: past{state: "used", block: before(880), events: events(transferOf(p, seller, value), useOf(p))}, want: "open"},
		"a fee is taken":           {past: past{state: "used", block: before(880), events: events(useOf(p), transferOf(p, thief, 1), transferOf(p, seller, value-1))}, want: "open"},
		"less than the price":      {past: past{state: "used", block: before(880), events: events(useOf(p), transferOf(p, seller, value-1))}, want: "open"},
		"no transfer":              {past: past{state: "used", block: before(880), events: events(useOf(p))}, want: "open"},
		"no transfer, another use": {past: past{state: "used", block: before(880), events: events(useOf(p), otherNonce)}, want: "open"},
		"another token moved":      {past: past{state: "used", block: before(880), events: events(useOf(p), elsewhere)}, want: "open"},
		"paid to somebody else":    {past: past{state: "used", block: before(880), events: events(useOf(p), transferOf(p, thief, value))}, want: used},
		"the same, not yet final":  {past: past{state: "used", block: before(880), final: 441, events: events(useOf(p), transferOf(p, thief, value))}, want: "open"},

		"cancelled":               {past: past{state: "used", events: events(cancelOf(p)), block: before(880)}, want: used},
		"cancelled before it all": {past: past{state: "used", events: events(cancelOf(p)), block: before(9000)}, want: "open"},
		"cancelled, valid":        {past: past{state: "used", events: events(cancelOf(p)), block: before(40)}, now: -100, since: 60, want: used},
		"cancelled, not final":    {past: past{state: "used", events: events(cancelOf(p)), block: before(880), final: 441}, want: "open"},
		"cancelled, final now":    {past: past{state: "used", events: events(cancelOf(p)), block: before(880), final: 440}, want: used},

		"used, no event":          {past: past{state: "used"}, want: "open"},
		"nothing is told":         {past: past{}, want: "open"},
		"somebody else's nonce":   {past: past{state: "used", logs: events(foreign), events: events(foreign, transferOf(p, seller, value)), block: before(880)}, want: "open"},
		"another nonce":           {past: past{state: "used", logs: events(otherNonce), events: own, block: before(880)}, want: "open"},
		"another token":           {past: past{state: "used", logs: events(otherToken), events: own, block: before(880)}, want: "open"},
		"an event taken back":     {past: past{state: "used", logs: events(taken), events: own, block: before(880)}, want: "open"},
		"receipt without the use": {past: past{state: "used", logs: own[:1], events: own[1:], block: before(880)}, want: "open"},

		"unused, ended":              {past: past{state: "unused"}, want: expired},
		"unused, a second too early": {past: past{state: "unused"}, now: 4, want: "open"},
		"unused, five seconds after": {past: past{state: "unused", final: 2}, now: 9, want: expired},
		"unused, unconfirmed":        {past: past{state: "unused"}, now: 8, want: "open"},
		"unused, valid":              {past: past{state: "unused"}, now: -100, since: 60, want: "open"},
		"unused, not final":          {past: past{state: "unused", final: 298}, want: "open"},
		"unused, final now":          {past: past{state: "unused", final: 297}, want: expired},
		"no final blocks":            {past: past{state: "unused", final: -1}, want: expired},
		"no final blocks, too early": {past: past{state: "unused", final: -1}, now: 516, want: "open"},
		"behind":                     {past: past{state: "unused", behind: 31}, want: "error"},
		"behind a little":            {past: past{state: "unused", behind: 30}, want: expired},
		"used, behind":               {past: past{state: "used", behind: 31, events: own, block: before(880)}, want: "error"},
		"down":                       {past: past{down: true}, want: "error"},

		"2000 blocks at once":     {past: past{state: "used", events: own, block: before(880), widest: 2000}, since: 9_000, want: "moved", atLeast: 3},
		"10 blocks at once":       {past: past{state: "used", events: own, block: before(880), widest: 10}, want: "moved", atLeast: 5},
		"10 blocks at once, HTTP": {past: past{state: "used", events: own, block: before(880), widest: 10, narrow: 400}, want: "moved", atLeast: 5},
		"too far for 10 blocks":   {past: past{state: "used", events: own, block: before(880), widest: 10}, since: 40_000, want: "error", atLeast: mostSearches},
		"9 blocks at once":        {past: past{state: "used", events: own, block: before(880), widest: 9}, want: "error", atLeast: 5},
		"busy":                    {past: past{state: "used", events: own, block: before(880), widest: 1, narrow: 429}, want: "error", atLeast: 1},
		"since the first block":   {past: past{state: "used", events: own, block: before(880)}, since: 300_000, want: "moved", atLeast: 10},
		"since the future":        {past: past{state: "used", events: own, block: before(880)}, since: -60, want: "open"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.now == 0 {
				tt.now = 600
			}
			if tt.since == 0 {
				tt.since = 900
			}
			c := newClock(ends.Unix() + tt.now)
			since := c.now().Add(-time.Duration(tt.since) * time.Second)
			if tt.since == -1 {
				since = time.Time{}
			}
			l, _ := lookAt(t, c, []*past{&tt.past})
			proof, err := l.Witness(context.Background(), r, since)
			if got := say(proof, err); got != tt.want {
				t.Errorf("%s (%+v, %v), want %s", got, proof, err, tt.want)
			}
			if tt.past.searches < tt.atLeast || tt.past.searches > mostSearches {
				t.Errorf("%d searches", tt.past.searches)
			}
		})
	}
}

// TestNoBlockIsSkipped: a node that searches few blocks at once is asked about
// all of them, and about few more.
func TestNoBlockIsSkipped(t *testing.T) {
	r, _, ends, own := paying(t)
	c := newClock(ends.Unix() + 600)
	for i := range uint64(25) {
		p := past{state: "used", events: own, block: before(880) + i, widest: 10}
		l, _ := lookAt(t, c, []*past{&p})
		if got := say(l.Witness(context.Background(), r, c.now().Add(-15*time.Minute))); got != "moved" || p.searches > 16 {
			t.Errorf("block %d: %s after %d searches", p.block, got, p.searches)
		}
	}
}

// TestNodesAgree: one node is enough for what moved, if none contradicts, and none
// alone says that nothing will. A quorum can outvote who contradicts.
func TestNodesAgree(t *testing.T) {
	r, p, ends, own := paying(t)
	unused := past{state: "unused"}
	moved := past{state: "used", events: own, block: before(880)}
	cancelled := past{state: "used", events: []chain.Event{cancelOf(p)}, block: before(880)}
	used, unsure := past{state: "used"}, past{state: "unused", final: 50_000}
	late := past{state: "used", events: own, block: pastHead - 2}
	silent, behind, down := past{}, past{state: "unused", behind: 60}, past{down: true}
	const (
		expired = "void invalid_exact_evm_payload_authorization_valid_before"
		taken   = "void invalid_exact_evm_nonce_already_used"
	)
	for name, tt := range map[string]struct {
		nodes  []past
		want   string
		log    string
		quorum int
		valid  bool // the authorization has not ended
	}{
		"both":                     {[]past{unused, unused}, expired, "", 0, false},
		"two of three":             {[]past{down, unused, unused}, expired, "", 0, false},
		"one is down":              {[]past{unused, down}, "open", "a second node", 0, false},
		"one is behind":            {[]past{unused, behind}, "open", "a second node", 0, false},
		"one is not sure":          {[]past{unused, unsure}, "open", "a second node", 0, false},
		"one does not tell":        {[]past{silent, unused}, "open", "a second node", 0, false},
		"one has it used":          {[]past{unused, used}, "open", "disagree", 0, false},
		"one of three has it used": {[]past{unused, unused, used}, "open", "disagree", 0, false},
		"cancelled or ended":       {[]past{unused, cancelled}, "open", "disagree", 0, false},
		"one saw it move":          {[]past{unused, unused, moved}, "open", "disagree whether a payment has moved", 0, false},
		"two saw it move":          {[]past{moved, unused, moved}, "open", "disagree whether a payment has moved", 0, false},
		"moved, or cancelled":      {[]past{moved, cancelled}, "open", "disagree whether a payment has moved", 0, false},
		"moved in another block":   {[]past{moved, {state: "used", events: own, block: before(878)}}, "open", "disagree whether a payment has moved", 0, false},
		"one is a moment behind":   {[]past{late, {state: "unused", short: 3}}, "moved", "", 0, true},
		"one is not behind":        {[]past{late, {state: "unused", short: 2}}, "open", "disagree whether a payment has moved", 0, true},
		"one found nothing":        {[]past{used, moved, silent}, "moved", "", 0, false},
		"quorum":                   {[]past{moved, moved}, "moved", "", 2, false},
		"quorum outvotes one":      {[]past{moved, moved, unused}, "moved", "", 2, false},
		"quorum, one is down":      {[]past{moved, moved, down}, "moved", "", 2, false},
		"no quorum":                {[]past{moved, down, down}, "open", "until as many nodes have seen it", 2, false},
		"no quorum, contradicted":  {[]past{moved, unused, unused}, "open", "disagree whether a payment has moved", 2, false},
		"quorum, and as many not":  {[]past{moved, moved, unused, unused}, "open", "disagree whether a payment has moved", 2, false},
		"quorum of three for no":   {[]past{unused, unused, down}, "open", "", 3, false},
		"one is left":              {[]past{down, moved, behind}, "moved", "", 0, false},
		"cancelled":                {[]past{cancelled, cancelled}, taken, "", 0, false},
		"cancelled, one sees half": {[]past{cancelled, used, cancelled}, taken, "", 0, false},
		"all are down":             {[]past{down, behind}, "error", "", 0, false},
		"none knows":               {[]past{silent, used}, "open", "", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock(ends.Unix() + 600)
			if tt.valid {
				c = newClock(ends.Unix() - 100)
			}
			var list []*past
			for i := range tt.nodes {
				list = append(list, &tt.nodes[i])
			}
			l, logs := lookAt(t, c, list, func(c *chain.Chain) { c.Quorum = tt.quorum })
			proof, err := l.Witness(context.Background(), r, c.now().Add(-15*time.Minute))
			if got := say(proof, err); got != tt.want {
				t.Errorf("%s (%+v, %v), want %s", got, proof, err, tt.want)
			}
			if tt.log != "" && !strings.Contains(logs(), tt.log) {
				t.Errorf("the log lacks %q: %s", tt.log, logs())
			}
		})
	}
}

// TestWitnessOfOthers: what is no EIP-3009 payment of ours is not looked for.
func TestWitnessOfOthers(t *testing.T) {
	good, _, ends, own := paying(t)
	c := newClock(ends.Unix() + 600)
	node := (&past{state: "used", events: own, block: before(880)}).tell(t, c)
	f, _ := start(t, baseSepolia, &Network{RPC: []string{node.URL}}, c)
	change := func(change func(*facilitator.Request)) facilitator.Request {
		r := good
		change(&r)
		return r
	}
	for name, r := range map[string]facilitator.Request{
		"no payment": change(func(r *facilitator.Request) { r.Payment = nil }),
		"Permit2": change(func(r *facilitator.Request) {
			r.Requirement.Extra = jsontext.Value(`{"assetTransferMethod":"permit2"}`)
		}),
		"upto":           change(func(r *facilitator.Request) { r.Requirement.Scheme = "upto" }),
		"another price":  change(func(r *facilitator.Request) { r.Requirement.Amount += "0" }),
		"another seller": change(func(r *facilitator.Request) { r.Requirement.PayTo = signerAddress }),
		"no asset":       change(func(r *facilitator.Request) { r.Requirement.Asset = "USDC" }),
	} {
		if proof, err := f.Witness(context.Background(), r, c.now().Add(-time.Hour)); err != nil || proof != (facilitator.Proof{}) {
			t.Errorf("%s: %+v, %v", name, proof, err)
		}
	}
	elsewhere := change(func(r *facilitator.Request) { r.Requirement.Network = "eip155:1" })
	if proof, err := f.Witness(context.Background(), elsewhere, c.now()); err == nil || proof != (facilitator.Proof{}) {
		t.Errorf("another chain: %+v", proof)
	}
	if node.total() != 0 {
		t.Error("the node was asked")
	}
	// The payer's signature is not ours to judge here: it may be a wallet's.
	wallet := *good.Payment
	wallet.Payload = jsontext.Value(strings.Replace(string(wallet.Payload), `"signature": "0x`, `"signature": "0x00`, 1))
	r := change(func(r *facilitator.Request) { r.Payment = &wallet })
	if p, err := read(r); err != nil || p.signer == byKey {
		t.Fatal("the signature is good")
	}
	if got := say(f.Witness(context.Background(), r, c.now().Add(-15*time.Minute))); got != "moved" {
		t.Error(got)
	}
	if !f.Sees(baseSepolia) || f.Sees("eip155:1") || f.Sees("base-sepolia") || new(Facilitator).Sees(baseSepolia) {
		t.Error("it sees what it does not")
	}
	if _, err := new(Facilitator).Witness(context.Background(), good, c.now()); err == nil {
		t.Error("not provisioned, and no error")
	}
}
