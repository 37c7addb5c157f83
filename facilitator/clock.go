package facilitator

import "time"

// Clocked is implemented by facilitators that tell what time it is.
type Clocked interface {
	// ClockAhead is how far its clock was ahead of ours when it last said so; below zero,
	// ours is ahead. 0 is also a difference that does not matter, or is not known.
	ClockAhead() time.Duration
}

// ClockAhead is how far the clocks of the facilitators are ahead of ours: the smallest of the
// differences, 0 if one of them finds none, or they differ about whose is ahead.
func (s *Set) ClockAhead() (ahead time.Duration) {
	first := true
	for _, m := range s.members {
		c, ok := m.Facilitator.(Clocked)
		if !ok {
			continue
		}
		switch d := c.ClockAhead(); {
		case first:
			ahead, first = d, false
		case (d > 0) != (ahead > 0), (d < 0) != (ahead < 0):
			return 0
		case d.Abs() < ahead.Abs():
			ahead = d
		}
	}
	return ahead
}
