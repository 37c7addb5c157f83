package ledger

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"
)

// TestCondition: a ledger is down while it cannot be asked, and for a while after several
// rows could not be changed, longer each time; what it refuses, it has answered.
func TestCondition(t *testing.T) {
	broken := errors.New("disk full")
	start := time.Unix(1_800_000_000, 0)
	type step struct {
		key   Key
		err   error
		probe bool
	}
	change := func(key Key, err error) step { return step{key: key, err: err} }
	probe := func(err error) step { return step{err: err, probe: true} }
	three := []step{change("1", broken), change("2", broken), change("3", broken)}
	with := func(more ...step) []step { return append(slices.Clone(three), more...) }
	for name, tt := range map[string]struct {
		steps []step
		after time.Duration
		wait  time.Duration
		err   error
	}{
		"new":                            {},
		"it cannot be asked":             {steps: []step{probe(broken)}, wait: 2 * time.Second, err: broken},
		"it can again":                   {steps: []step{probe(broken), probe(ErrNotFound)}},
		"two rows fail":                  {steps: three[:2]},
		"one fails all the time":         {steps: []step{change("1", broken), change("1", broken), change("1", broken), change("1", broken)}},
		"three fail":                     {steps: three, wait: time.Second, err: broken},
		"three fail, a second ago":       {steps: three, after: time.Second},
		"that it is read does not count": {steps: []step{three[0], three[1], probe(nil), three[2]}, wait: time.Second, err: broken},
		"five fail":                      {steps: with(change("4", broken), change("5", broken)), wait: 4 * time.Second, err: broken},
		"one works":                      {steps: with(change("4", nil), change("5", broken))},
		"what is taken was answered":     {steps: []step{three[0], three[1], change("4", &TakenError{}), three[2]}},
		"what was lost was answered":     {steps: []step{three[0], three[1], change("4", ErrLost), three[2]}},
	} {
		t.Run(name, func(t *testing.T) {
			var c condition
			for _, s := range tt.steps {
				if s.probe {
					c.asked(s.err, start)
				} else {
					c.changed(s.key, s.err, start)
				}
			}
			if wait, err := c.down(start.Add(tt.after)); wait != tt.wait || !errors.Is(err, tt.err) || err != nil && tt.err == nil {
				t.Errorf("%s, %v", wait, err)
			}
		})
	}
	var c condition
	for i := range 100 {
		c.changed(Key(strconv.Itoa(i)), broken, start)
	}
	if wait, _ := c.down(start); wait != longestPause {
		t.Error(wait)
	}
}
