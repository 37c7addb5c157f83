package promises

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// byRange charges little for a range, whose answer breaks off, and the word for the whole.
func byRange(u *gate.Upstream, little, all string) {
	u.On(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			rw.Header().Set("Settlement-Overrides", amountOf(little))
			rw.WriteHeader(206)
			_, _ = io.WriteString(rw, "t")
			_ = http.NewResponseController(rw).Flush()
			panic(http.ErrAbortHandler)
		}
		if all != "" {
			rw.Header().Set("Settlement-Overrides", amountOf(all))
		}
		_, _ = io.WriteString(rw, gate.Goods)
	})
}

func buysARange(w *gate.World, path, payment string) {
	conn, host := w.Dial()
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nRange: bytes=0-0\r\nPAYMENT-SIGNATURE: %s\r\n\r\n", path, host, payment)
	_, _ = io.ReadAll(conn) // it is the upstream that breaks off
}

// The bound of what is owed is what was signed at the purchase, and not what a second
// signature of the same nonce says, over less.
func TestUptoBoundIsWhatWasSigned(t *testing.T) {
	for _, all := range []string{"", "100%"} {
		t.Run("the whole costs "+all, func(t *testing.T) {
			w, b := newUptoWorld(t, "price /chat/* upto $0.50")
			byRange(w.Upstream, "1%", all)
			p := gate.NewPayer(t)
			first := w.PermitFor(http.MethodGet, "/chat/x", p)
			buysARange(w, "/chat/x", first.V2(t))
			w.Expect(w.Again(func() gate.Answer { return w.PayWith(http.MethodGet, "/chat/x", first.V2(t)) }), 409, "usage_above_charge")
			less := p.DraftPermit(t, first.Requirement)
			less.Nonce, less.Amount = first.Nonce, "5000"
			res := w.Again(func() gate.Answer { return w.PayWith(http.MethodGet, "/chat/x", p.SignPermit(t, less).V2(t)) })
			t.Log(res.StatusCode, res.Text)
			if res.StatusCode == 200 {
				t.Errorf("goods for 100%% of 500000, charged %v", b.Amounts())
			}
		})
	}
}

// Amounts of two tokens with different decimals are not compared as numbers.
func TestUptoBoundIsOfItsToken(t *testing.T) {
	for _, all := range []string{"", "100%", "$0.50"} {
		t.Run("the whole costs "+all, func(t *testing.T) {
			w, b := newUptoWorld(t, "accept base-sepolia usdc "+gate.PayTo+"\naccept base-sepolia 0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC "+gate.PayTo+" {\n decimals 18\n peg usd\n}\nprice /chat/* upto $0.50")
			byRange(w.Upstream, "$0.0001", all)
			p := gate.NewPayer(t)
			var cents, wei x402.Requirement
			for _, a := range w.Challenge(http.MethodGet, "/chat/x").Accepts {
				if len(a.Amount) > 10 {
					wei = a
				} else {
					cents = a
				}
			}
			buysARange(w, "/chat/x", p.Permit(t, wei).V2(t))
			res := w.Again(func() gate.Answer { return w.PayWith(http.MethodGet, "/chat/x", p.Permit(t, cents).V2(t)) })
			t.Log(res.StatusCode, res.Text)
			if moved := b.Amounts(); res.StatusCode == 200 && len(moved) == 1 {
				t.Errorf("goods for $0.50, charged %v wei of a dollar ($0.0001)", moved)
			}
		})
	}
}

// An upstream that would charge more is run so often.
func TestUptoRunsAreBounded(t *testing.T) {
	w, b := newUptoWorld(t, "price /chat/* upto $0.50")
	byRange(w.Upstream, "1", "100%")
	payment := w.PermitFor(http.MethodGet, "/chat/x", gate.NewPayer(t)).V2(t)
	buysARange(w, "/chat/x", payment)
	codes := map[string]int{}
	for range 40 {
		res := w.Again(func() gate.Answer { return w.PayWith(http.MethodGet, "/chat/x", payment) })
		codes[fmt.Sprint(res.StatusCode, " ", strings.TrimSpace(res.Text))]++
	}
	t.Log(codes)
	if w.Upstream.Hits.Load() > 21 {
		t.Errorf("%d runs of the upstream, charged %v; the bound is 20", w.Upstream.Hits.Load(), b.Amounts())
	}
}

// What upto charges zero for counts among what a payer had for nothing.
func TestNothingChargedIsBounded(t *testing.T) {
	w, b := newUptoWorld(t, "price /chat/* upto $0.50")
	w.Upstream.Charges(amountOf("$0.0000001"))
	p := gate.NewPayer(t)
	asked := w.Challenge(http.MethodGet, "/chat/x").Accepts[0]
	good := 0
	for i := range 120 {
		res := w.PayWith(http.MethodGet, "/chat/x", p.Permit(t, asked).V2(t))
		if res.StatusCode != 200 {
			t.Log(i, res.StatusCode, res.Text)
			break
		}
		good++
		time.Sleep(time.Millisecond)
	}
	if good > 60 {
		t.Errorf("%d answers for nothing, charged %v", good, b.Amounts())
	}
}
