//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// postgresServer is a PostgreSQL of our own, on a socket in a directory of its
// own.
type postgresServer struct {
	dir string
	cmd *exec.Cmd
	log bytes.Buffer
}

func startPostgres(in string) (_ *postgresServer, err error) {
	dir, err := os.MkdirTemp(in, "paywall-bench-pg")
	if err != nil {
		return nil, err
	}
	s := &postgresServer{dir: dir}
	if os.Getuid() == 0 { // as which PostgreSQL does not run
		if out, err := exec.Command("chown", "postgres:", dir).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("giving %s to postgres: %w: %s", dir, err, out)
		}
	}
	data := filepath.Join(dir, "data")
	initdb, err := s.command("initdb", "-D", data, "-A", "trust", "-U", "gateway", "-E", "UTF8", "--locale=C.UTF-8")
	if err != nil {
		return nil, err
	}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if s.cmd, err = s.command("postgres", "-D", data, "-k", dir, "-c", "listen_addresses="); err != nil {
		return nil, err
	}
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.dsn())
		if err == nil {
			return s, conn.Close(ctx)
		}
		if ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("PostgreSQL does not answer: %w", err), s.stop())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *postgresServer) dsn() string {
	return fmt.Sprintf("host=%s user=gateway dbname=postgres", s.dir)
}

func (s *postgresServer) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGINT)
	return errors.Join(s.cmd.Wait(), os.RemoveAll(s.dir))
}

// command runs a program of PostgreSQL, as postgres if we are root. Debian has
// the programs in a place of their own.
func (s *postgresServer) command(name string, args ...string) (*exec.Cmd, error) {
	path, err := exec.LookPath(name)
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); len(found) > 0 {
		path, err = found[len(found)-1], nil
	}
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL is missing: apt-get install postgresql (%w)", err)
	}
	args = append([]string{path}, args...)
	if os.Getuid() == 0 {
		args = append([]string{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=QUIT"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = s.dir
	return cmd, nil
}
