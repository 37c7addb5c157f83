package gate

import (
	"sync"
)

// Barrier holds what comes to it until it is opened.
type Barrier struct {
	Come chan struct{} // one for each that has come
	open chan struct{}
	once sync.Once
}

// NewBarrier makes one that is closed.
func NewBarrier() *Barrier {
	return &Barrier{Come: make(chan struct{}, 1000), open: make(chan struct{})}
}

// Pass waits until it is opened.
func (g *Barrier) Pass() { g.Come <- struct{}{}; <-g.open }

// Release opens it.
func (g *Barrier) Release() { g.once.Do(func() { close(g.open) }) }
