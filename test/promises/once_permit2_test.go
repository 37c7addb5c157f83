package promises

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/test/gate"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const acceptPermit2 = "accept base-sepolia usdc " + gate.PayTo + " {\n transfer permit2\n}\n"

// plain is an ERC-20 token with neither EIP-3009 nor EIP-2612, as USDT is.
const plain = "0xeED520980fC7C7B4eB379B96d61CEdea2423005a"

const acceptPlain = "accept base-sepolia " + plain + " " + gate.PayTo + " {\n decimals 6\n transfer permit2\n peg usd\n}\n"

// newPermit2World sells for $0.01 by Permit2.
func newPermit2World(t *testing.T, options string, extensions ...string) (*gate.World, *gate.Facilitator) {
	t.Helper()
	w := gate.Prepare(t)
	w.Facilitator.Kinds.Store(gate.KindsWithUpto(gate.FacilitatorA, extensions...))
	w.Load(w.Caddyfile(options))
	w.Until(func() bool { // till it has been heard what the facilitator can do
		c := w.Challenge(http.MethodGet, "/paid/x")
		return len(extensions) == 0 || len(c.Extensions) > len(x402.PaymentIdentifier)
	})
	return w, w.Facilitator
}

// TestPermit2PaysWithAnyToken: any token is paid through Permit2, settled on success and first.
func TestPermit2PaysWithAnyToken(t *testing.T) {
	for name, accept := range map[string]string{"USDC": acceptPermit2, "a plain token": acceptPlain} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			t.Run(method+" "+name, func(t *testing.T) {
				w, b := newPermit2World(t, accept+"price /paid/* $0.01")
				p := gate.NewPayer(t)
				header := w.PermitFor(method, "/paid/x", p).V2(t)
				res := w.PayWith(method, "/paid/x", header)
				w.Expect(res, 200, "")
				if receipt := gate.ReceiptOf(t, res); !receipt.Success || receipt.Payer != p.Address.Hex() || receipt.Amount != "" {
					t.Errorf("receipt %+v", receipt)
				}
				b.ExpectMoved(t, "10000")
				w.Expect(w.Again(func() gate.Answer { return w.PayWith(method, "/paid/x", header) }), 402, "payment_already_used")
				if again := w.PayWith(method, "/paid/y", header); again.StatusCode == 200 {
					t.Error("one authorization, two deliveries")
				}
				w.Counts(1, 1, 1)
			})
		}
	}
}

// TestPermit2OfferHasTheTokensDomain: the token's domain is in the offer where payers can sign an
// EIP-2612 permit with it, and version 1 is not offered what it cannot pay.
func TestPermit2OfferHasTheTokensDomain(t *testing.T) {
	w, _ := newPermit2World(t, acceptPermit2+acceptPlain+"accept base-sepolia usdc "+gate.PayTo+"\nprice /paid/* $0.01")
	c := w.Challenge(http.MethodGet, "/paid/x")
	want := []string{
		`{"assetTransferMethod":"permit2","name":"USDC","version":"2"}`,
		`{"assetTransferMethod":"permit2"}`,
		`{"name":"USDC","version":"2"}`,
	}
	if len(c.Accepts) != len(want) {
		t.Fatalf("%+v", c.Accepts)
	}
	for i, extra := range want {
		if string(c.Accepts[i].Extra) != extra {
			t.Errorf("offer %d: %s", i, c.Accepts[i].Extra)
		}
	}
	var v1 struct {
		Accepts []struct {
			Scheme, Asset string
			Extra         map[string]string
		}
	}
	if err := json.Unmarshal([]byte(w.Get("/paid/x").Text), &v1); err != nil {
		t.Fatal(err)
	}
	if len(v1.Accepts) != 1 || v1.Accepts[0].Asset != gate.USDC || v1.Accepts[0].Extra["assetTransferMethod"] != "" {
		t.Errorf("version 1 is offered %+v", v1.Accepts)
	}
	// A version 1 payment buys by EIP-3009, as it must.
	s := gate.NewPayer(t).Sign(t, c.Accepts[2], time.Now())
	w.Facilitator.OnSettle(nil)
	w.Expect(w.Get("/paid/x", "X-PAYMENT", s.V1(t)), 200, "")
}

// refusesPermit pays with a permit that was changed before it was signed: it is
// refused with a code, and nobody is asked.
func refusesPermit(w *gate.World, path string, change func(*gate.Permit), code string) {
	w.T.Helper()
	p := gate.NewPayer(w.T)
	s := p.DraftPermit(w.T, w.Challenge(http.MethodGet, path).Accepts[0])
	change(s)
	w.Expect(w.PayWith(http.MethodGet, path, p.SignPermit(w.T, s).V2(w.T)), 402, code)
	w.Counts(0, 0, 0)
}

// Every member that a payer could bend is refused here, without a facilitator.
func TestBentPermit2IsRefused(t *testing.T) {
	w, b := newPermit2World(t, acceptPermit2+"price /paid/* $0.01")
	soon := strconv.FormatInt(time.Now().Unix()+5, 10)
	late := strconv.FormatInt(time.Now().Unix()+26*3600, 10)
	for name, tt := range map[string]struct {
		change func(*gate.Permit)
		code   string
	}{
		"spender is the payee":    {func(s *gate.Permit) { s.Spender = gate.PayTo }, "invalid_permit2_spender"},
		"spender of upto":         {func(s *gate.Permit) { s.Spender = x402.UptoPermit2Proxy }, "invalid_permit2_spender"},
		"another payee":           {func(s *gate.Permit) { s.To = gate.FacilitatorB }, "invalid_permit2_recipient_mismatch"},
		"less":                    {func(s *gate.Permit) { s.Amount = "9999" }, "permit2_amount_mismatch"},
		"more":                    {func(s *gate.Permit) { s.Amount = "10001" }, "permit2_amount_mismatch"},
		"another token":           {func(s *gate.Permit) { s.Token = plain }, "permit2_token_mismatch"},
		"ends too soon":           {func(s *gate.Permit) { s.Deadline = soon }, "permit2_deadline_expired"},
		"ended":                   {func(s *gate.Permit) { s.Deadline = "1" }, "permit2_deadline_expired"},
		"lives too long":          {func(s *gate.Permit) { s.Deadline = late }, "authorization_lifetime_too_long"},
		"begins in the future":    {func(s *gate.Permit) { s.ValidAfter = late }, "permit2_not_yet_valid"},
		"accepted another amount": {func(s *gate.Permit) { s.Requirement.Amount = "1" }, "no_matching_requirements"},
		"accepted another scheme": {func(s *gate.Permit) { s.Requirement.Scheme = "upto"; s.Facilitator = gate.FacilitatorA }, "no_matching_requirements"},
	} {
		t.Run(name, func(t *testing.T) {
			w.T = t
			refusesPermit(w, "/paid/x", tt.change, tt.code)
			b.ExpectMoved(t)
		})
	}
}

// A contract wallet's payment of version 1, which names no token, is found again
// although the first offer on its network is one for Permit2.
func TestPermit2HidesNoVersion1Payment(t *testing.T) {
	w := gate.Prepare(t)
	w.Facilitator.Kinds.Store(gate.KindsWithUpto(gate.FacilitatorA))
	w.Load(w.Caddyfile("price /paid/* $0.01 {\n settle first\n}"))
	w.Upstream.On(gate.Says(500, "broken"))
	p := gate.NewPayer(t)
	s := gate.NewPayer(t).SignWith(t, w.Challenge(http.MethodGet, "/paid/x").Accepts[0], p.Sign(t, w.Challenge(http.MethodGet, "/paid/x").Accepts[0], time.Now()).Authorization)
	w.Expect(w.Get("/paid/x", "X-PAYMENT", s.V1(t)), 500, "")
	w.Upstream.On(nil)
	w.Reload(w.Caddyfile(acceptPermit2 + "accept base-sepolia usdc " + gate.PayTo + "\nprice /other $0.01\nprice /paid/* upto $0.50"))
	w.Until(func() bool { return w.Get("/paid/x", "X-PAYMENT", s.V1(t)).StatusCode == 200 })
	if w.Facilitator.Transfers() != 1 {
		t.Error(w.Facilitator.Transfers())
	}
}

// What is owed to a payer is not handed to somebody who only writes its name:
// a fresh authorization has to be signed by its own key, or verified.
func TestPermit2StrangerRedeemsNothing(t *testing.T) {
	w, b := newPermit2World(t, acceptPermit2+"price /paid/* $0.01 {\n settle first\n}")
	w.Upstream.On(gate.Says(500, "broken"))
	victim, thief := gate.NewPayer(t), gate.NewPayer(t)
	w.Expect(w.PayWith(http.MethodGet, "/paid/x", w.PermitFor(http.MethodGet, "/paid/x", victim).V2(t)), 500, "")
	w.Upstream.On(nil)
	w.Facilitator.OnVerify(gate.Says(200, `{"isValid":false,"invalidReason":"invalid_permit2_signature"}`))
	s := victim.DraftPermit(t, w.Challenge(http.MethodGet, "/paid/x").Accepts[0])
	forged := thief.SignPermit(t, s).V2(t)
	w.Expect(w.PayWith(http.MethodGet, "/paid/x", forged), 402, "invalid_permit2_signature")
	w.Facilitator.OnVerify(nil)
	w.Until(func() bool {
		return w.PayWith(http.MethodGet, "/paid/x", w.PermitFor(http.MethodGet, "/paid/x", victim).V2(t)).StatusCode == 200
	})
	b.ExpectMoved(t, "10000")
}

// Permit2 has one space of nonces for all tokens and both schemes: the same
// nonce buys once.
func TestPermit2NonceIsOne(t *testing.T) {
	w, b := newPermit2World(t, acceptPermit2+acceptPlain+"price /paid/* $0.01\nprice /chat/* upto $0.50")
	p := gate.NewPayer(t)
	first := w.PermitFor(http.MethodGet, "/paid/x", p)
	w.Expect(w.PayWith(http.MethodGet, "/paid/x", first.V2(t)), 200, "")
	other := p.DraftPermit(t, w.Challenge(http.MethodGet, "/paid/x").Accepts[1])
	usage := p.DraftPermit(t, w.Challenge(http.MethodGet, "/chat/x").Accepts[0])
	for _, s := range []*gate.Permit{other, usage} {
		s.Nonce = first.Nonce
		path := "/paid/x"
		if s == usage {
			path = "/chat/x"
		}
		w.Expect(w.Again(func() gate.Answer { return w.PayWith(http.MethodGet, path, p.SignPermit(t, s).V2(t)) }), 402, "payment_already_used")
	}
	b.ExpectMoved(t, "10000")
}

// A missing allowance is told with 402, which clients act on, whatever status
// the facilitator has for it.
func TestMissingAllowanceIsA402(t *testing.T) {
	w, b := newPermit2World(t, acceptPermit2+"price /paid/* $0.01")
	for _, status := range []int{200, 412} {
		w.Facilitator.OnVerify(gate.Says(status, `{"isValid":false,"invalidReason":"permit2_allowance_required"}`))
		w.Expect(w.PayWith(http.MethodGet, "/paid/x", w.PermitFor(http.MethodGet, "/paid/x", gate.NewPayer(t)).V2(t)), 402, "permit2_allowance_required")
	}
	w.Counts(0, 2, 0)
	b.ExpectMoved(t)
}

// The gas sponsoring that the facilitator lists is offered where a token needs
// it, and what the payer adds reaches the facilitator untouched.
func TestGasSponsoringReachesTheFacilitatorUntouched(t *testing.T) {
	both := []string{x402.EIP2612GasSponsoring, x402.ERC20ApprovalGasSponsoring, "somethingElse"}
	for name, tt := range map[string]struct {
		options string
		listed  []string
		offered []string
	}{
		"EIP-2612 token":     {acceptPermit2 + "price /paid/* $0.01", both, both[:1]},
		"plain token":        {acceptPlain + "price /paid/* $0.01", both, both[1:2]},
		"both tokens":        {acceptPermit2 + acceptPlain + "price /paid/* $0.01", both, both[:2]},
		"upto":               {"price /paid/* upto $0.50", both, both[:1]},
		"EIP-3009 needs no":  {"price /paid/* $0.01", nil, nil},
		"not listed":         {acceptPermit2 + "price /paid/* $0.01", nil, nil},
		"listed for another": {acceptPermit2 + acceptPlain + "price /paid/* $0.01", both[:1], both[:1]},
	} {
		t.Run(name, func(t *testing.T) {
			w, b := newPermit2World(t, tt.options, tt.listed...)
			var declared map[string]struct{ Info, Schema map[string]any }
			if err := json.Unmarshal(w.Challenge(http.MethodGet, "/paid/x").Extensions, &declared); err != nil {
				t.Fatal(err)
			}
			for _, extension := range both {
				_, is := declared[extension]
				if want := strings.Contains(strings.Join(tt.offered, " "), extension); is != want {
					t.Errorf("%s offered: %v, want %v", extension, is, want)
				}
			}
			if len(tt.offered) == 0 {
				return
			}
			name := tt.offered[0]
			info := declared[name].Info
			info["from"], info["signature"] = "0x1", "0x2"
			s := w.PermitFor(http.MethodGet, "/paid/x", gate.NewPayer(t))
			s.Extensions = map[string]any{name: map[string]any{"info": info, "schema": declared[name].Schema}}
			w.Expect(w.PayWith(http.MethodGet, "/paid/x", s.V2(t)), 200, "")
			if calls := b.Settlements(); len(calls) != 1 || !strings.Contains(calls[0].Body, `"signature":"0x2"`) {
				t.Errorf("the facilitator saw %+v", calls)
			}
			info["description"] = "mine"
			s = w.PermitFor(http.MethodGet, "/paid/x", gate.NewPayer(t))
			s.Extensions = map[string]any{name: map[string]any{"info": info}}
			w.Expect(w.PayWith(http.MethodGet, "/paid/x", s.V2(t)), 402, "extension_echo_mismatch")
		})
	}
}
