package postgres

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-paywall/caddy-paywall/ledger"
	"github.com/caddy-paywall/caddy-paywall/ledger/ledgertest"
)

// server is a PostgreSQL of our own, in a directory of its own. It listens on a
// socket in there and nowhere else, so that no port can be taken.
type server struct {
	dir     string
	options []string
	process *exec.Cmd
	log     bytes.Buffer
	schemas atomic.Int32
}

// The servers that tests share that do not harm them: tests one that does not
// wait for the disk, benchmarks one that does.
var (
	quick  = sync.OnceValues(func() (*server, error) { return newServer("-c", "fsync=off") })
	honest = sync.OnceValues(func() (*server, error) { return newServer() })
	shared []*server
)

func TestMain(m *testing.M) {
	code := m.Run()
	for _, s := range shared {
		s.destroy()
	}
	os.Exit(code)
}

// theServer is the one that tests, or benchmarks, share.
func theServer(t testing.TB) *server {
	t.Helper()
	get := quick
	if _, ok := t.(*testing.B); ok {
		get = honest
	}
	s, err := get()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(shared, s) {
		shared = append(shared, s)
	}
	return s
}

// newServer makes a database and starts it.
func newServer(options ...string) (*server, error) {
	if _, err := program("initdb"); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "paywall")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, options: options}
	if os.Getuid() == 0 { // as which PostgreSQL does not run
		if out, err := exec.Command("chown", "postgres:", dir).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("giving %s to postgres: %w: %s", dir, err, out)
		}
	}
	initdb, err := s.command("initdb", "-D", s.data(), "-A", "trust", "-U", "gateway", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	if err != nil {
		return nil, err
	}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return s, s.start()
}

// program finds a program of PostgreSQL. Debian has them in a place of their own.
func program(name string) (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) > 0 {
		return found[len(found)-1], nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("PostgreSQL is missing: apt-get install postgresql (%w)", err)
	}
	return path, nil
}

// command runs a program of PostgreSQL, as postgres if we are root.
func (s *server) command(name string, args ...string) (*exec.Cmd, error) {
	path, err := program(name)
	if err != nil {
		return nil, err
	}
	args = append([]string{path}, args...)
	switch setpriv, err := exec.LookPath("setpriv"); {
	case os.Getuid() == 0 && err != nil:
		return nil, fmt.Errorf("setpriv is missing: apt-get install util-linux (%w)", err)
	case os.Getuid() == 0:
		args = append([]string{setpriv, "--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=QUIT"}, args...)
	case err == nil:
		args = append([]string{setpriv, "--pdeathsig=QUIT"}, args...) // never without us
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = s.dir
	return cmd, nil
}

func (s *server) data() string { return filepath.Join(s.dir, "data") }

// dsn says how to reach the tables of one test.
func (s *server) dsn(schema string) string {
	return fmt.Sprintf("host=%s user=gateway dbname=postgres search_path=%s", s.dir, schema)
}

// start starts the server and waits until it answers.
func (s *server) start() error {
	cmd, err := s.command("postgres", append(s.options, "-D", s.data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "max_connections=60")...)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	if err := cmd.Start(); err != nil {
		return err
	}
	s.process = cmd
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.dsn("public"))
		if err == nil {
			return conn.Close(ctx)
		}
		if ctx.Err() != nil {
			s.stop(syscall.SIGQUIT)
			return fmt.Errorf("PostgreSQL does not start: %w\n%s", err, s.log.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// stop ends the server: SIGINT is pg_ctl's "fast", SIGQUIT its "immediate", which
// is a crash.
func (s *server) stop(how os.Signal) {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(how)
	_ = s.process.Wait()
	s.process = nil
}

func (s *server) destroy() {
	s.stop(syscall.SIGQUIT)
	_ = os.RemoveAll(s.dir)
}

// exec runs SQL outside of any ledger.
func (s *server) exec(t testing.TB, schema, sql string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), s.dsn(schema))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), sql); err != nil {
		t.Fatal(err)
	}
}

// newSchema makes room for the tables of one test.
func (s *server) newSchema(t testing.TB) string {
	t.Helper()
	name := fmt.Sprint("t", s.schemas.Add(1))
	s.exec(t, "public", "CREATE SCHEMA "+name)
	return name
}

// gateway opens a ledger on the tables of a test.
func (s *server) gateway(t testing.TB, schema string, o Options) *Ledger {
	t.Helper()
	o.DSN = s.dsn(schema)
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// open opens a new, empty ledger.
func open(t testing.TB, o Options) *Ledger {
	t.Helper()
	s := theServer(t)
	return s.gateway(t, s.newSchema(t), o)
}

func TestContract(t *testing.T) {
	ledgertest.Run(t, func(t *testing.T, now func() time.Time) ledger.Ledger {
		return cleaner{open(t, Options{Now: now})}
	})
}

// cleaner does the work of the background when it is told to.
type cleaner struct{ *Ledger }

func (c cleaner) Clean() error { return c.prune(make(chan struct{})) }

// TestContractOverTwo runs the contract over two gateways that take turns, so
// that none of them knows what the other has written.
func TestContractOverTwo(t *testing.T) {
	ledgertest.Run(t, func(t *testing.T, now func() time.Time) ledger.Ledger {
		s := theServer(t)
		schema := s.newSchema(t)
		return &turns{gateways: [2]*Ledger{s.gateway(t, schema, Options{Now: now}), s.gateway(t, schema, Options{Now: now})}}
	})
}

// rows counts rows.
func (s *server) rows(t testing.TB, schema, where string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), s.dsn(schema))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	sql := strings.TrimSpace("SELECT count(*) FROM paywall_payments WHERE " + where)
	if err := conn.QueryRow(context.Background(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
