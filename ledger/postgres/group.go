package postgres

import (
	"sync"
	"time"
)

const (
	// maxBatch is how many share a transaction at most.
	maxBatch = 128
	// One batch of a group is under way, and a second when that many wait: while one waits
	// for the disk or the network, the other is with the processor.
	workers = 2
	crowded = 24
	// company is how long a batch waits for others if the one before was shared: a
	// transaction costs more than most that is in it. Who is alone does not wait.
	company = 500 * time.Microsecond
)

// group lets those who wait for the database go together: the longer it takes, the larger
// the batches.
type group[T any] struct {
	// do serves a batch.
	do func([]T)

	mu      sync.Mutex
	waiting []T
	active  int
}

func (g *group[T]) add(t T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = append(g.waiting, t)
	if g.active == 0 || g.active < workers && len(g.waiting) >= crowded {
		g.active++
		go g.work()
	}
}

func (g *group[T]) work() {
	for batch := g.next(); len(batch) > 0; batch = g.next() {
		g.do(batch)
		if len(batch) > 1 {
			time.Sleep(company)
		}
	}
}

// next takes those who wait, up to a batch of them.
func (g *group[T]) next() []T {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), maxBatch)
	batch := g.waiting[:n:n]
	if g.waiting = g.waiting[n:]; len(g.waiting) == 0 {
		g.waiting = nil
	}
	if n == 0 {
		g.active--
	}
	return batch
}
