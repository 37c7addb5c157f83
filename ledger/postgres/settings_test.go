package postgres

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// TestSettingsAreReadBack: a ledger does not open where its settings do not hold, as behind a
// pooler that drops them. Whether a commit waits for the disk is one of them.
func TestSettingsAreReadBack(t *testing.T) {
	s := theServer(t)
	for name := range sessionSettings {
		t.Run(name, func(t *testing.T) {
			l := s.gateway(t, s.newSchema(t), Options{})
			other := map[string]string{"timezone": "'Europe/Berlin'", "default_transaction_isolation": "'serializable'", "plan_cache_mode": "auto"}[name]
			if other == "" {
				other = map[bool]string{true: "off", false: "on"}[sessionSettings[name] == "on"]
			}
			if strings.HasSuffix(name, "_timeout") {
				other = "0"
			}
			l.config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
				_, err := conn.Exec(ctx, "SET "+name+" = "+other)
				return err
			}
			l.pool.Close()
			var err error
			if l.pool, err = pgxpool.NewWithConfig(t.Context(), l.config); err != nil {
				t.Fatal(err)
			}
			_, err = l.Claim(t.Context(), sample(1), lease)
			if !errors.Is(err, ledger.ErrUnavailable) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "something between drops our settings") {
				t.Errorf("%v", err)
			}
		})
	}
}
