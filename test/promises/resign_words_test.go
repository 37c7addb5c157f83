package promises

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
)

// A 409 or 503 says in words which payment it is about, what became of that one's money, and
// what to do. A payment that is refused because of another one of its payer is not told that
// it is in another request.
func TestRefusalsSayWhatIsSo(t *testing.T) {
	const here, another, unknown = "This payment is held", "Another payment of yours, for the same request", "It is not known yet whether "
	t.Run("the same payment is in another request", func(t *testing.T) {
		w := gate.New(t, "price /paid/* $0.01")
		started, goOn := holds(w)
		s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
		done := make(chan gate.Answer, 1)
		go func() { done <- w.Get("/paid/x", "PAYMENT-SIGNATURE", s) }()
		<-started
		says(t, w.Get("/paid/x", "PAYMENT-SIGNATURE", s), 409, here, "Send the same payment again", "it is not charged twice.")
		close(goOn)
		w.Expect(<-done, 200, "")
	})
	t.Run("another payment for the same order", func(t *testing.T) {
		w := gate.New(t, "price POST /act $0.01\nretry_window 90m")
		started, goOn := holds(w)
		p := gate.NewPayer(t)
		asked := w.Challenge(http.MethodPost, "/act").Accepts[0]
		send := func() gate.Answer {
			return w.SendBody(t.Context(), http.MethodPost, "/act", p.Sign(t, asked, time.Now()).V2(t), "order")
		}
		done := make(chan gate.Answer, 1)
		go func() { done <- send() }()
		<-started
		says(t, send(), 409, another, "This payment has not been charged.", "within 90 min: the same request is not charged twice", "payment-identifier")
		close(goOn)
		w.Expect(<-done, 200, "")
		w.Facilitator.ExpectMoved(t, "10000")
	})
	t.Run("an earlier payment that is in doubt", func(t *testing.T) {
		w := gate.Prepare(t)
		w.WithLedger()
		w.Load(gate.OnLedger(w.Caddyfile("price /paid/* $0.01")))
		w.Facilitator.OnSettle(gate.Drop)
		p := gate.NewPayer(t)
		first := w.Sign(http.MethodGet, "/paid/x", p).V2(t)
		says(t, w.Get("/paid/x", "PAYMENT-SIGNATURE", first), 503, unknown+"this payment has been charged", "Call again with the same payment, within 24 h: it is not charged twice. Do not sign another one.")
		says(t, w.Get("/paid/x", "PAYMENT-SIGNATURE", w.Sign(http.MethodGet, "/paid/x", p).V2(t)), 503,
			unknown+"an earlier payment of yours, for the same request", "This payment has not been charged.", "within 24 h: the same request is not charged twice.")
	})
	t.Run("an upstream that failed before the money moved", func(t *testing.T) {
		w := gate.New(t, "price /paid/* $0.01")
		w.Upstream.On(gate.Drop)
		says(t, w.Pay(http.MethodGet, "/paid/x"), 502, "The site behind the price failed", "has not been charged", "Call again later.")
	})
	t.Run("an upstream that failed afterwards", func(t *testing.T) {
		w := gate.New(t, "price /act $0.01")
		w.Upstream.On(gate.Drop)
		says(t, w.Pay(http.MethodPost, "/act"), 502, "The site behind the price failed", "still yours", "within 24 h: it is not charged twice.")
	})
	t.Run("nobody to check payments", func(t *testing.T) {
		w := gate.New(t, "price /paid/* $0.01")
		s := w.Sign(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)
		w.Facilitator.OnVerify(gate.Drop)
		says(t, w.Get("/paid/x", "PAYMENT-SIGNATURE", s), 503, "Nobody can check", "Call again later", "it is not charged twice.")
	})
}

// holds makes the upstream wait.
func holds(w *gate.World) (started, goOn chan struct{}) {
	started, goOn = make(chan struct{}, 9), make(chan struct{})
	w.Upstream.On(func(rw http.ResponseWriter, _ *http.Request) {
		started <- struct{}{}
		<-goOn
		_, _ = io.WriteString(rw, "goods")
	})
	return started, goOn
}

// says wants an answer with a status whose message has these parts, in their order.
func says(t *testing.T, res gate.Answer, status int, parts ...string) {
	t.Helper()
	var body struct{ Error, Message string }
	if err := json.Unmarshal([]byte(res.Text), &body); err != nil || res.StatusCode != status {
		t.Fatalf("%d %s, %v", res.StatusCode, res.Text, err)
	}
	rest := body.Message
	for _, part := range parts {
		_, after, found := strings.Cut(rest, part)
		if !found {
			t.Fatalf("%s: %q does not say %q", body.Error, body.Message, part)
		}
		rest = after
	}
}
