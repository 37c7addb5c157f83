package remote

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
)

func TestValidateTimeout(t *testing.T) {
	for d, ok := range map[time.Duration]bool{
		-time.Second: false, time.Millisecond: true, maxTimeout: true, maxTimeout + 1: false,
	} {
		if err := (&Facilitator{Timeout: caddy.Duration(d)}).Validate(); (err == nil) != ok {
			t.Errorf("%s: %v", d, err)
		}
	}
}

// A reload keeps the connections and what was learnt; another config does not
// get at them; what was cleaned up still serves those who hold it.
func TestReload(t *testing.T) {
	url := serve(t, &fixed{status: 200, body: `{"kinds":[],"isValid":true}`})
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	load := func(token string) *Facilitator {
		f := &Facilitator{URL: url, Auth: &Auth{Type: "bearer", Token: token}}
		if err := f.Provision(ctx); err != nil {
			t.Fatal(err)
		}
		return f
	}
	old := load("canary-one")
	if _, err := old.Supported(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh, other := load("canary-one"), load("canary-two")
	if fresh.shared != old.shared || fresh.shared.supported.Load() == nil {
		t.Error("the reload begins from nothing")
	}
	if other.shared == old.shared {
		t.Error("another token shares connections")
	}
	pool.Range(func(key, _ any) bool {
		if strings.Contains(key.(string), "canary") || strings.Contains(key.(string), "http") {
			t.Errorf("the key of the pool tells the config: %s", key)
		}
		return true
	})
	for _, f := range []*Facilitator{old, fresh, other} {
		if err := f.Cleanup(); err != nil {
			t.Error(err)
		}
		if err := f.Cleanup(); err != nil {
			t.Errorf("second Cleanup: %v", err)
		}
	}
	if _, err := old.Verify(t.Context(), request()); err != nil {
		t.Errorf("a request that outlives its config: %v", err)
	}
	old.shared.transport.CloseIdleConnections()
}

func TestCleanupAfterFailedProvision(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	for _, f := range []*Facilitator{{}, {URL: "https://a.example", Auth: &Auth{Type: "bearer"}}} {
		if err := f.Provision(ctx); err == nil {
			t.Error("no error")
		}
		if err := f.Cleanup(); err != nil {
			t.Error(err)
		}
	}
}

func TestModule(t *testing.T) {
	info, err := caddy.GetModule("paywall.facilitators.remote")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := info.New().(facilitator.Facilitator); !ok {
		t.Errorf("%T is no facilitator", info.New())
	}
}
