package recent_test

import (
	"testing"

	"github.com/caddy-paywall/caddy-paywall/crawlers/recent"
)

func TestKeepsTheLatest(t *testing.T) {
	m := recent.NewMap[int, int](100)
	for i := range 10_000 {
		m.Put(i, -i)
		for _, latest := range []int{i, max(0, i-99)} {
			if v, ok := m.Get(latest); !ok || v != -latest {
				t.Fatalf("%d is forgotten at %d", latest, i)
			}
		}
		if m.Len() > 200 {
			t.Fatalf("%d are kept", m.Len())
		}
	}
	if _, ok := m.Get(0); ok {
		t.Error("the first one is kept")
	}
}

func TestPutUnless(t *testing.T) {
	m := recent.NewMap[string, int](1)
	is1 := func(v int) bool { return v == 1 }
	for _, step := range []struct {
		value, want int
		stood       bool
	}{{1, 1, false}, {2, 1, true}} {
		if there, stood := m.PutUnless("a", step.value, is1); there != step.want || stood != step.stood {
			t.Errorf("%d: %d %v", step.value, there, stood)
		}
	}
	if there, stood := m.PutUnless("a", 3, func(int) bool { return false }); stood || there != 3 {
		t.Errorf("%d %v", there, stood)
	}
}
