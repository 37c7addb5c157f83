// Package recent remembers the latest of many things, in bounded memory.
package recent

import "sync"

// Map remembers at least so many of the latest entries, and at most twice as many.
type Map[K comparable, V any] struct {
	mu         sync.Mutex
	max        int
	young, old map[K]V
}

// NewMap makes one.
func NewMap[K comparable, V any](atLeast int) *Map[K, V] {
	return &Map[K, V]{max: atLeast, young: map[K]V{}}
}

// Get finds an entry.
func (m *Map[K, V]) Get(key K) (value V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.get(key)
}

func (m *Map[K, V]) get(key K) (value V, ok bool) {
	if value, ok = m.young[key]; !ok {
		value, ok = m.old[key]
	}
	return value, ok
}

// Put keeps an entry.
func (m *Map[K, V]) Put(key K, value V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(key, value)
}

func (m *Map[K, V]) put(key K, value V) {
	if len(m.young) >= m.max {
		m.old, m.young = m.young, map[K]V{}
	}
	m.young[key] = value
}

// PutUnless keeps an entry unless there is one that stands, and returns that one.
func (m *Map[K, V]) PutUnless(key K, value V, stands func(V) bool) (there V, stood bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if there, ok := m.get(key); ok && stands(there) {
		return there, true
	}
	m.put(key, value)
	return value, false
}

// Len is how many entries are kept.
func (m *Map[K, V]) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.young) + len(m.old)
}
