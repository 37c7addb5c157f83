package commands

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-json-experiment/json"

	"github.com/caddy-paywall/caddy-paywall/ledger/postgres"
	"github.com/caddy-paywall/caddy-paywall/ledger/sqlite"
	"github.com/caddy-paywall/caddy-paywall/traffic"
)

// openTraffic opens the counts that belong to a ledger.
func (s source) openTraffic() (traffic.Reader, error) {
	where, err := s.find()
	if err != nil {
		return nil, err
	}
	if where.dsn != "" {
		book, err := postgres.TrafficReader(where.dsn)
		if err != nil {
			return nil, fmt.Errorf("the address of the database: %w", err)
		}
		return book, nil
	}
	file := where.file
	if file == "" {
		file = sqlite.DefaultFile()
	}
	book, err := traffic.OpenSQLite(traffic.FileBeside(file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("nothing was counted at %s: it is where the user has it that Caddy runs as, from the start of a Caddy with a paywall on; be that user (sudo -u …), or say where the ledger is with --file, --config or --postgres-env", traffic.FileBeside(file))
	}
	return book, err
}

// openLedger opens the ledger that the flags name, to read it.
func (s source) openLedger(ctx context.Context) (reader, error) {
	where, err := s.find()
	if err != nil {
		return nil, err
	}
	if where.dsn != "" {
		return openPostgres(ctx, where.dsn)
	}
	l, err := openSQLite(where.file)
	if err != nil {
		return nil, err // not l, which would be a reader that is no nil
	}
	return l, nil
}

// source is where a ledger is, as flags say it.
type source struct {
	file, postgresEnv, config, adapter string
}

func (s *source) addTo(flags interface {
	StringVar(p *string, name, value, usage string)
},
) {
	flags.StringVar(&s.file, "file", "", "the `file` of the SQLite ledger (default: where Caddy keeps it)")
	flags.StringVar(&s.postgresEnv, "postgres-env", "", "the environment variable (`NAME`) with the address of the PostgreSQL ledger")
	flags.StringVar(&s.config, "config", "", "the `file` with Caddy's config, which names the ledger")
	flags.StringVar(&s.adapter, "adapter", "", "the `name` of the config adapter, where the file's name does not tell")
}

// found is a ledger: in a file ("" is the default) or in a database.
type found struct{ file, dsn string }

func (s source) find() (found, error) {
	given := 0
	for _, flag := range []string{s.file, s.postgresEnv, s.config} {
		if flag != "" {
			given++
		}
	}
	if given > 1 {
		return found{}, errors.New("--file, --postgres-env and --config exclude each other")
	}
	switch {
	case s.postgresEnv != "":
		dsn := os.Getenv(s.postgresEnv)
		if dsn == "" {
			return found{}, fmt.Errorf("--postgres-env: the environment has no %s", s.postgresEnv)
		}
		return found{dsn: dsn}, nil
	case s.config != "":
		return ledgerIn(s.config, s.adapter)
	}
	return found{file: s.file}, nil
}

// ledgerIn finds the ledger that a config names.
func ledgerIn(file, adapter string) (found, error) {
	raw, _, err := loadConfig(file, adapter)
	if err != nil {
		return found{}, err
	}
	var config struct {
		Apps struct {
			Paywall struct {
				Ledger struct {
					Type string `json:"type"`
					File string `json:"file"`
					DSN  string `json:"dsn"`
				} `json:"ledger"`
			} `json:"paywall"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(raw, &config, json.DefaultOptionsV2()); err != nil {
		return found{}, fmt.Errorf("reading %s: %w", file, err)
	}
	l := config.Apps.Paywall.Ledger
	switch l.Type {
	case "", "sqlite":
		path, err := caddy.NewReplacer().ReplaceOrErr(l.File, true, true)
		if err != nil {
			return found{}, fmt.Errorf("the ledger's file: %w", err)
		}
		return found{file: path}, nil
	case "postgres":
		dsn, err := caddy.NewReplacer().ReplaceOrErr(l.DSN, true, true)
		if err != nil {
			return found{}, fmt.Errorf("the ledger's dsn: %w", err)
		}
		return found{dsn: dsn}, nil
	}
	return found{}, fmt.Errorf("%s sells in a ledger of the kind %s, which keeps nothing that could be read", file, clean(l.Type))
}
