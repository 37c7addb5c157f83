package remote

import (
	"net/http"
	"testing"
	"time"

	"go.uber.org/zap"
)

// TestClock: what the date of an answer says of our clock.
func TestClock(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	date := func(d time.Duration) http.Header {
		return http.Header{"Date": {now.Add(d).UTC().Format(http.TimeFormat)}}
	}
	cached := date(-time.Hour)
	cached.Set("Age", "3600")
	for name, tt := range map[string]struct {
		header http.Header
		took   time.Duration
		want   time.Duration
	}{
		"none":                {header: http.Header{}, want: time.Hour},
		"junk":                {header: http.Header{"Date": {"yesterday"}}, want: time.Hour},
		"the same":            {header: date(0)},
		"a little ahead":      {header: date(40 * time.Second)},
		"ahead":               {header: date(5 * time.Minute), want: 5 * time.Minute},
		"behind":              {header: date(-5 * time.Minute), want: -5 * time.Minute},
		"in the middle":       {header: date(2*time.Minute - 3*time.Second), took: 6 * time.Second, want: 2 * time.Minute},
		"of a slow answer":    {header: date(5 * time.Minute), took: time.Minute, want: time.Hour},
		"of an answer cached": {header: cached, want: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			var c clock
			c.ahead.Store(int64(time.Hour)) // what was known before
			c.saw(tt.header, now.Add(-tt.took), now, zap.NewNop())
			if got := time.Duration(c.ahead.Load()); got != tt.want {
				t.Error(got)
			}
		})
	}
}
