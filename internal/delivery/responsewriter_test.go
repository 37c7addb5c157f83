package delivery

import (
	"testing"
	"time"
)

// An upstream gives up on a payer who lets it wait for long at once, or most of the time.
// One who reads all the time over a slow line, or for hours, is not to blame when it breaks.
func TestWhoStallsIsNotWhoIsSlow(t *testing.T) {
	for _, c := range []struct {
		name  string
		waits []time.Duration
		since time.Duration // when the answer began
		want  bool
	}{
		{"reads at once", nil, time.Minute, false},
		{"a second at once", []time.Duration{time.Millisecond, time.Second}, time.Minute, true},
		{"a slow line for a while", times(300, 20*time.Millisecond), 6 * time.Second, false},
		{"drips for a minute", times(100, 500*time.Millisecond), time.Minute, true},
		{"a stream of hours", times(1000, 20*time.Millisecond), time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &ResponseWriter{begun: time.Now().Add(-c.since)}
			for _, d := range c.waits {
				a.wait(d)
			}
			if a.stalled() != c.want {
				t.Errorf("stalled: %v", !c.want)
			}
		})
	}
}

func times(n int, d time.Duration) (list []time.Duration) {
	for range n {
		list = append(list, d)
	}
	return list
}
