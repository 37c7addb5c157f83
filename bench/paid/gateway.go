//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caddy-paywall/caddy-paywall/bench/process"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	payTo = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
	goods = "/paid/"
)

// gateway is a Caddy in a process of its own.
type gateway struct {
	name    string
	address string
	sells   bool // else it only proxies
	pid     int  // of Caddy itself
	admin   process.Admin
	gone    chan error
	// offer is what the gateway wants to be paid.
	offer x402.Requirement
}

// startGateway starts one, and waits until it sells. The words are those after
// `ledger`, or none for a Caddy without the paywall. The command is
// the program, after what it is wrapped in.
func (b *bench) startGateway(name, ledger string, command ...string) (*gateway, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	address, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	g := &gateway{name: name, address: address, sells: ledger != "", admin: process.NewAdmin(filepath.Join(dir, "admin.sock")), gone: make(chan error, 1)}
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(b.caddyfile(g, dir, ledger)), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := append(command, "run", "--config", file, "--adapter", "caddyfile", "--pidfile", filepath.Join(dir, "pid"))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = process.Environment(dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { g.gone <- cmd.Wait() }()
	if err := g.ready(dir); err != nil {
		said, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%w\n%s", errors.Join(err, g.stop()), said)
	}
	return g, nil
}

func (b *bench) caddyfile(g *gateway, dir, ledger string) string {
	var app, site string
	if g.sells {
		app = fmt.Sprintf("paywall {\n ledger %s\n facilitator yes yes %s\n }", ledger, b.delay)
		site = fmt.Sprintf("paywall {\n accept base-sepolia usdc %s\n facilitator yes\n settle %s\n price /paid/* $0.01 \"A thing\"\n }", payTo, b.settle)
	}
	return fmt.Sprintf(`{
	admin unix/%s/admin.sock
	persist_config off
	auto_https off
	log {
		level WARN
	}
	%s
}
http://%s {
	%s
	reverse_proxy %s {
		transport http {
			keepalive_idle_conns_per_host %d
		}
	}
}
`, dir, app, g.address, site, b.upstream, b.idle)
}

// ready waits until the gateway answers as it should, and notes its offer.
func (g *gateway) ready(dir string) error {
	want := http.StatusOK
	if g.sells {
		want = http.StatusPaymentRequired
	}
	last := errors.New("no answer")
	for range 200 {
		select {
		case err := <-g.gone:
			g.gone <- err
			return fmt.Errorf("it has ended: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
		res, err := http.Get("http://" + g.address + goods)
		if err != nil {
			last = err
			continue
		}
		_ = res.Body.Close()
		if last = fmt.Errorf("status %d", res.StatusCode); res.StatusCode != want {
			continue
		}
		if g.sells {
			c, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired))
			if err != nil {
				return err
			}
			g.offer = c.Accepts[0]
		}
		pid, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err == nil {
			g.pid, err = strconv.Atoi(strings.TrimSpace(string(pid)))
		}
		return err
	}
	return last
}

// stop stops the gateway, through its admin API, for the process that was started
// may be another one.
func (g *gateway) stop() error {
	if res, err := g.admin.Post("http://localhost/stop", "", nil); err == nil {
		_ = res.Body.Close()
	}
	select {
	case err := <-g.gone:
		return err
	case <-time.After(20 * time.Second):
		return fmt.Errorf("%s does not stop", g.name)
	}
}

// profile writes a profile of the gateway, as net/http/pprof names it, into a file.
func (g *gateway) profile(name, file string) error {
	b, err := g.admin.Profile(name)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}
