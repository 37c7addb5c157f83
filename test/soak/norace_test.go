//go:build !race

package soak

// racing: the gateways are built with the race detector, as the tests are.
const racing = false
