//go:build race

package paywall_test

func init() { raceEnabled = true }
