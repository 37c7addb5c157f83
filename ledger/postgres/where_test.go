package postgres

import "testing"

// TestWhereNamesTheDatabase and not who we are to it.
func TestWhereNamesTheDatabase(t *testing.T) {
	for dsn, want := range map[string]string{
		"postgres://user:secret@127.0.0.1/paywall?sslmode=disable":   "postgres 127.0.0.1:5432/paywall",
		"host=127.0.0.1 dbname=paywall user=other sslmode=disable":   "postgres 127.0.0.1:5432/paywall",
		"host=/run/postgresql user=a dbname=paywall search_path=two": "postgres /run/postgresql:5432/paywall two",
		"{env.PAYWALL_TEST_UNSET}":                                   "",
		"no DSN":                                                     "",
	} {
		if got := (&Module{DSN: dsn}).Where(); got != want {
			t.Errorf("%s is at %q, want %q", dsn, got, want)
		}
	}
}
