package sqlite

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// oldRow appends a record of a row as the first version wrote it.
func oldRow(b []byte, p *ledger.Payment) []byte {
	from := len(b)
	b = appendRow(b, p)
	b[from] = recordOldRow
	const line, effects, ended = 1, 1, 1 // bytes, of nothing
	return b[:len(b)-line-effects-ended-len(appendTime(nil, time.Time{}))]
}

// TestMigrateFromFirst opens what the first version left: rows in its database, and
// others in its journal alone. What it did not know is not known.
func TestMigrateFromFirst(t *testing.T) {
	for version := 1; version < len(migrations); version++ {
		t.Run(fmt.Sprint("from version ", version), func(t *testing.T) {
			path := filepath.Join(memoryDir(t), "payments.db")
			rows := map[ledger.Key]ledger.Payment{}
			for _, key := range []ledger.Key{"in the database", "in the journal"} {
				p := payment(key)
				p.ID, p.State, p.Body = ledger.ID(key), ledger.Settled, "12 text/plain"
				p.ValidBefore, p.Keep = p.ValidBefore.UTC().Round(0), p.Keep.UTC().Round(0)
				p.Created, p.Updated = time.Unix(1, 2).UTC(), time.Unix(3, 4).UTC()
				rows[key] = p
			}
			old, err := sql.Open("sqlite", dataSource(path, "rwc"))
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range append(migrations[:version:version], fmt.Sprint("PRAGMA user_version = ", version)) {
				if _, err := old.ExecContext(t.Context(), text); err != nil {
					t.Fatal(err)
				}
			}
			p := rows["in the database"]
			key := digestOf(p.Key)
			for _, c := range []struct {
				text string
				args []any
			}{
				{"INSERT INTO meta VALUES (?, ?)", []any{metaDatabase, metaNumber(7)}},
				{"INSERT INTO meta VALUES (?, ?)", []any{metaComplete, metaNumber(1)}},
				{"INSERT INTO meta VALUES (?, ?)", []any{metaVersion, metaNumber(1)}},
				{`INSERT INTO payments (hash, version, key, state, doubt, scheme, network, asset, pay_to, payer, amount, valid_before,
					method, host, url, client, identifier, body, facilitator, transaction_id, reason, status, runs, request, created, updated, keep)
					VALUES (?, 1, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', '', 0, 0, ?, ?, ?, ?)`, []any{
					key[:], string(p.Key), string(p.State), p.Scheme, p.Network, p.Asset, p.PayTo, p.Payer, p.Amount, nanos(p.ValidBefore),
					p.Method, p.Host, []byte(p.URL), p.Client, p.Identifier, p.Body, p.Facilitator, p.Request,
					required(p.Created), required(p.Updated), nanos(p.Keep),
				}},
			} {
				if _, err := old.ExecContext(t.Context(), c.text, c.args...); err != nil {
					t.Fatal(err)
				}
			}
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			p = rows["in the journal"]
			segment := header{7, 2, 2, 0}.bytes()
			frame := oldRow(openFrame(nil), &p)
			seal(frame, 2, 1)
			segment = append(append(segment, frame...), make([]byte, 100)...)
			if err := os.WriteFile(segmentName(journalPrefix(path), 1), segment, fileMode); err != nil {
				t.Fatal(err)
			}

			for _, when := range []string{"at once", "after a restart"} {
				l := open(t, path, Options{still: true})
				for key, want := range rows {
					got, err := l.Get(t.Context(), key)
					if err != nil || !reflect.DeepEqual(got, want) {
						t.Errorf("%s: %s came back as %+v, %v\nwant %+v", when, key, got, err, want)
					}
				}
				bring(t, l, ledger.Key("new "+when), ledger.Delivered)
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
