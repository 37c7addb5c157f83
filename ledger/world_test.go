package ledger

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWorld lets several gateways handle one authorization by the rules, on a
// chain that takes it at most once and can take it back, through a facilitator
// that loses answers and says no when it has already been asked. Gateways stop
// at any point, also for longer than their lease. Whatever happens:
//
//   - at most one of them believes, by its own clock, that it holds;
//   - the authorization is free only when no money has moved or still can;
//   - delivered is recorded once, and stays;
//   - a row with money in it is not forgotten.
func TestWorld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{T: t, now: testTime, validBefore: testTime.Add(5 * time.Minute)}
		for i := range w.gateways {
			w.gateways[i] = &gateway{world: w, name: fmt.Sprint("gateway ", i)}
		}
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			w.step()
			w.check()
		}
	})
}

type world struct {
	*rapid.T
	now, validBefore time.Time

	// The store: one row and its token.
	row    Payment
	token  int
	tokens int

	// The chain: whether the money has moved, and whether a transaction is on
	// its way that may still move it.
	moved, pending bool

	deliveries int
	gateways   [3]*gateway
}

// gateway is one process; what it remembers dies with it.
type gateway struct {
	*world
	name  string
	token int       // 0: holds nothing
	state State     // as it knows
	lease time.Time // as it knows
	asked bool      // has asked the facilitator in this hold
}

// one draws one of several things to do.
func (w *world) one(what string, choices ...string) string {
	return rapid.SampledFrom(choices).Draw(w.T, what)
}

func (w *world) step() {
	switch w.one("event", "act", "act", "act", "act", "act", "act", "wait", "chain") {
	case "act":
		w.gateways[rapid.IntRange(0, len(w.gateways)-1).Draw(w.T, "gateway")].act()
	case "wait":
		w.now = w.now.Add(time.Duration(rapid.IntRange(1, 90).Draw(w.T, "seconds")) * time.Second)
	case "chain":
		switch {
		case w.pending && w.one("fate", "mined", "dropped") == "mined":
			w.moved, w.pending = w.moved || w.now.Before(w.validBefore), false
		case w.moved && w.one("reorganise", "yes", "no", "no", "no") == "yes":
			w.moved, w.pending = false, true
		}
	}
	if !w.now.Before(w.validBefore) {
		w.pending = false // the token contract refuses it now
	}
}

func (w *world) check() {
	holders := 0
	for _, g := range w.gateways {
		if g.token != 0 && w.now.Before(g.lease) {
			holders++
		}
	}
	if holders > 1 {
		w.Fatalf("%d holders", holders)
	}
	if Claimable(w.row, w.now) && (w.moved || w.pending) {
		w.Fatalf("free while moved = %v, pending = %v: %+v", w.moved, w.pending, w.row)
	}
	if w.deliveries > 1 || w.deliveries == 1 && w.row.State != Delivered {
		w.Fatalf("delivered %d times, and the row is %s", w.deliveries, w.row.State)
	}
	if w.moved && Forgettable(w.row, w.now) && w.now.Before(w.row.Keep) {
		w.Fatalf("money forgotten: %+v", w.row)
	}
}

func (g *gateway) act() {
	if g.token == 0 {
		g.begin()
		return
	}
	switch g.one("how", "go on", "go on", "go on", "renew", "crash") {
	case "renew":
		if row, err := ApplyRenew(g.row, g.now, testLease); g.holds() && err == nil {
			g.row, g.lease = row, row.Lease
		} else {
			g.token = 0
		}
	case "crash":
		g.token = 0
	case "go on":
		switch g.state {
		case Claimed:
			g.move(Change{To: State(g.one("claimed", "settling", "settling", "released"))})
		case Settling:
			g.settle()
		case Settled:
			g.move(Change{To: State(g.one("settled", "delivering", "delivering", "settled"))})
		case Delivering:
			g.deliver()
		case Delivered:
			g.move(Change{To: Delivered, Reorganised: true})
		}
	}
}

// begin claims or takes, whatever the row is.
func (g *gateway) begin() {
	var row Payment
	var err error
	switch g.one("begin", "claim", "claim", "ask again", "redeliver", "look again") {
	case "claim":
		p := Payment{Key: "k", ValidBefore: g.validBefore, Keep: g.validBefore.Add(time.Hour)}
		row, err = ApplyClaim(g.row, p, g.now, testLease)
	case "ask again":
		row, err = ApplyTake(g.row, Settling, g.now, testLease)
	case "redeliver":
		row, err = ApplyTake(g.row, Delivering, g.now, testLease)
	case "look again":
		row, err = ApplyTake(g.row, Delivered, g.now, testLease)
	}
	if err != nil {
		return
	}
	g.tokens++
	g.row, g.world.token = row, g.tokens
	g.token, g.state, g.lease, g.asked = g.tokens, row.State, row.Lease, false
}

func (g *gateway) settle() {
	switch g.one("settling", "ask", "ask", "ask", "chain", "let go") {
	case "ask":
		if g.asked && !g.move(Change{To: Settling}) {
			return
		}
		g.asked = true
		switch g.ask() {
		case "yes":
			g.move(Change{To: Settled, Transaction: "0x1"})
		case "no":
			if !g.move(Change{To: Refused}) {
				g.move(Change{To: Unknown})
			}
		case "lost":
			if g.one("lost", "again", "unknown") == "unknown" {
				g.move(Change{To: Unknown})
			}
		}
	case "chain":
		switch {
		case g.moved:
			g.move(Change{To: Settled, Transaction: "0x1"})
		case !g.now.Before(g.validBefore):
			g.move(Change{To: Refused, Proven: true})
		}
	case "let go":
		if g.asked {
			g.move(Change{To: Unknown})
		} else {
			g.move(Change{To: Released})
		}
	}
}

// ask is the facilitator. It does not check that the asker still holds.
func (g *gateway) ask() string {
	if g.moved || g.pending {
		return g.one("second answer", "yes", "no", "lost")
	}
	answers := []string{"no", "lost"}
	if g.now.Before(g.validBefore) {
		answers = append(answers, "yes", "yes", "lost but moved", "lost but pending")
	}
	switch answer := g.one("answer", answers...); answer {
	case "yes":
		g.moved = true
		return answer
	case "lost but moved":
		g.moved = true
	case "lost but pending":
		g.pending = true
	case "no":
		return answer
	}
	return "lost"
}

// deliver sends the goods, to the end or not, or finds that the money is gone.
func (g *gateway) deliver() {
	switch {
	case !g.moved && g.one("look at the chain", "yes", "no") == "yes":
		g.move(Change{To: Settling, Reorganised: true})
	case g.one("delivery", "arrives", "breaks") == "arrives":
		if g.move(Change{To: Delivered}) {
			g.deliveries++
		}
	default:
		g.move(Change{To: Settled})
	}
}

func (g *gateway) holds() bool { return g.token == g.world.token }

// move is a store's Move. A gateway that lost its claim gives up; one that asked
// for something forbidden goes on.
func (g *gateway) move(ch Change) bool {
	if !g.holds() {
		g.token = 0
		return false
	}
	row, err := ApplyMove(g.row, ch, g.now)
	if err != nil {
		return false
	}
	g.row, g.state = row, row.State
	if row.Lease.IsZero() {
		g.token, g.world.token = 0, 0
	}
	return true
}
