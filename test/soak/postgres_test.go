package soak

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// database is a PostgreSQL of our own, in a directory of its own. It listens on
// a socket in there and nowhere else.
type database struct {
	t   testing.TB
	dir string
	cmd *exec.Cmd
	log *os.File
}

func newDatabase(t testing.TB) *database {
	t.Helper()
	dir, err := os.MkdirTemp("", "soakpg") // short: a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	d := &database{t: t, dir: dir}
	if os.Getuid() == 0 { // as which PostgreSQL does not run
		if out, err := exec.Command("chown", "postgres:", dir).CombinedOutput(); err != nil {
			t.Fatalf("giving %s to postgres: %v: %s", dir, err, out)
		}
	}
	out, err := d.command("initdb", "-D", filepath.Join(dir, "data"), "-A", "trust", "-U", "gateway", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync").CombinedOutput()
	if err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	if d.log, err = os.Create(filepath.Join(t.TempDir(), "postgres")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.stop(syscall.SIGINT)
		_ = os.RemoveAll(dir)
	})
	d.start()
	return d
}

// command runs a program of PostgreSQL. Debian has them in a place of their own.
func (d *database) command(name string, args ...string) *exec.Cmd {
	d.t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	path, err := exec.LookPath(name)
	if len(found) > 0 {
		path, err = found[len(found)-1], nil
	}
	if err != nil {
		d.t.Fatalf("PostgreSQL is missing: apt-get install postgresql (%v)", err)
	}
	args = append([]string{path}, args...)
	if os.Getuid() == 0 {
		args = append([]string{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = d.dir
	return cmd
}

func (d *database) dsn() string {
	return fmt.Sprintf("host=%s user=gateway dbname=postgres", d.dir)
}

func (d *database) open() *sql.DB {
	db, err := sql.Open("pgx", d.dsn())
	if err != nil {
		d.t.Fatal(err)
	}
	return db
}

func (d *database) start() {
	d.t.Helper()
	cmd := d.command("postgres", "-D", filepath.Join(d.dir, "data"), "-k", d.dir, "-c", "listen_addresses=", "-c", "max_connections=60")
	cmd.Stdout, cmd.Stderr = d.log, d.log
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.cmd = cmd
	db := d.open()
	defer db.Close()
	for range 600 {
		if db.Ping() == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	d.t.Fatal("PostgreSQL does not start")
}

// stop ends it: SIGINT is "fast", SIGQUIT is a crash.
func (d *database) stop(how os.Signal) {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(how)
	_ = d.cmd.Wait()
	d.cmd = nil
}

// TestThreeGateways lets three gateways share one PostgreSQL. Now one of them is
// killed, now the database stops or crashes, and comes back. In the short form one
// only ends and comes back: what was under way in the others is held until its
// lease ends, and its clients wait.
func TestThreeGateways(t *testing.T) {
	t.Parallel()
	rounds, limit := 2, 3*time.Minute
	if long {
		rounds, limit = 8, 5*time.Minute
	}
	if full {
		rounds, limit = 60, 25*time.Minute
	}
	w := newWorld(t)
	db := newDatabase(t)
	var gateways []*gateway
	var origins []string
	var g *gateway
	for range 3 {
		g = w.gateway(shop{ledger: fmt.Sprintf("postgres %q", db.dsn()), twin: g})
		gateways = append(gateways, g)
		origins = append(origins, g.plain)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit+patience)
	defer cancel()
	end := time.Now().Add(limit)
	// To the payers it is one shop behind a load balancer.
	done := w.load(ctx, 6, true, func() string { return origins[w.n(3)] })
	one := func() *gateway { return gateways[w.n(3)] }
	events := []func(){
		func() {
			if err := one().reload(0); err != nil {
				t.Error(err)
			}
		},
		func() {
			g := one()
			g.stop()
			g.start()
		},
	}
	if long {
		events = append(events, func() {
			g := one()
			g.kill()
			sleep(ctx, w.between(0, time.Second))
			g.start()
		}, func() {
			db.stop([]os.Signal{syscall.SIGINT, syscall.SIGQUIT}[w.n(2)])
			sleep(ctx, w.between(0, 2*time.Second))
			db.start()
		})
	}
	n := 0
	for ; n < rounds && time.Now().Before(end); n++ {
		sleep(ctx, w.between(200*time.Millisecond, 2*time.Second))
		events[n%len(events)]()
	}
	done()
	t.Logf("%d rounds", n)
	w.audit()
	// What a killed gateway held is free when its lease ends, and the reconciler
	// looks after that.
	const query = `SELECT key, state, transaction, amount, extract(epoch FROM updated)::bigint FROM paywall_payments`
	book := db.open()
	defer book.Close()
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		open := 0
		for _, r := range rows(t, book, query) {
			if strings.Contains("settling unknown", r.state) {
				open++
			}
		}
		if open == 0 {
			break
		}
	}
	for _, g := range gateways {
		g.stop()
	}
	w.compare(rows(t, book, query))
}
