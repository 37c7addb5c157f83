package admission

import "testing"

// ForTest returns what only tests may do; it panics elsewhere.
func (c *Control) ForTest() ControlForTest {
	if !testing.Testing() {
		panic("admission: ForTest outside a test")
	}
	return ControlForTest{c}
}

// ControlForTest changes what a control knows.
type ControlForTest struct{ c *Control }

// SetMost sets how many payments may be unsettled: in all, of them for trusted payers
// alone, of one payer, and from one network.
func (t ControlForTest) SetMost(all, kept, of, from int) (restore func()) {
	s := t.c.Unsettled
	set := func(all, kept, of, from int) (before [4]int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		before = [4]int{s.most, s.kept, s.mostOf, s.mostFrom}
		s.most, s.kept, s.mostOf, s.mostFrom = all, kept, of, from
		return before
	}
	before := set(all, kept, of, from)
	return func() { set(before[0], before[1], before[2], before[3]) }
}

// Forget forgets how all payers and networks fared.
func (t ControlForTest) Forget() {
	t.c.Distrusted.forget()
	t.c.Trusted.forget()
	t.c.tabs.forget()
	for _, b := range []*Buckets{t.c.NetworkTries, t.c.PayerTries, t.c.Strangers, t.c.AllStrangers, t.c.Looks} {
		for i := range b.buckets {
			bucket := &b.buckets[i]
			bucket.mu.Lock()
			bucket.owed = 0
			bucket.mu.Unlock()
		}
	}
}

func (r *Recent[T]) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.younger, r.older = nil, nil
}
