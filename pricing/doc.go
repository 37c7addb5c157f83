// Package pricing says what a request costs: exact money, the tables of assets
// and networks, addresses, and the price list with its patterns, its ranking
// and its index. It does no I/O and knows nothing of Caddy.
//
// Amounts are decimal strings at the edges and big integers inside. There is no
// floating point number in this package, and nothing is ever rounded: what
// cannot be said exactly is an error.
package pricing
