package postgres

import (
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/caddy-paywall/caddy-paywall/traffic"
)

// Gateways that share a database count into the same rows.
func TestTrafficIsCountedInTheDatabase(t *testing.T) {
	s := theServer(t)
	dsn := s.dsn(s.newSchema(t))
	config, err := parseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	today := time.Now().UTC().Truncate(24 * time.Hour)
	var rows []traffic.Row
	for i := range 3 {
		key := traffic.Key{Hour: today.Add(time.Duration(i-1) * 24 * time.Hour), Site: "s", Line: "/a", Client: traffic.Client{Kind: "train", Name: "Bot", Proof: "claimed"}, Unit: "USD"}
		rows = append(rows, traffic.Row{Key: key, Sums: traffic.Sums{Asked: 1 << i, Worth: decimal.RequireFromString("0.000000000000000001")}})
	}
	done := make(chan error)
	for range 4 {
		go func() {
			store := traffic.NewPostgres(config)
			err := store.Add(t.Context(), rows)
			_ = store.Close()
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	reader, err := TrafficReader(dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close() //nolint:errcheck // it was only read
	for q, want := range map[traffic.Query]int64{
		{}: 28, {Since: today}: 24, {Until: today}: 4, {Since: today.Add(-time.Hour), Until: today.Add(time.Hour)}: 8,
	} {
		var n int64
		for row, err := range reader.Rows(t.Context(), q) {
			if err != nil || row.Worth.String() != "0.000000000000000004" {
				t.Fatal(err, row.Worth)
			}
			n += row.Asked
		}
		if n != want {
			t.Errorf("%v: %d, want %d", q, n, want)
		}
	}
}
