// Package pricing is the price list: its patterns, their ranking, the index over
// them, and every way in which an upstream may read a request. It does no I/O and
// knows nothing of Caddy.
package pricing
