package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/caddy-paywall/caddy-paywall/bench/process"
)

const payTo = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"

// seller is a process that sells what the upstream has. All sell the same: GET
// /get/* and, whatever the method, /any/* and /shop/report.
type seller struct {
	name, dir, address string
	// command makes the process, which ends when its context does.
	command command
	// upstream is a port, facilitator a URL.
	upstream, facilitator string

	cancel context.CancelFunc
	gone   chan struct{} // closed when the process is gone, with err
	err    error
}

type command func(context.Context, *seller) (*exec.Cmd, error)

func caddyCommand(binary string) command {
	return func(ctx context.Context, s *seller) (*exec.Cmd, error) {
		file := filepath.Join(s.dir, "Caddyfile")
		config := fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	log {
		level WARN
	}
	paywall {
		facilitator scripted %s
	}
}
http://%s {
	paywall {
		accept base-sepolia usdc %s
		facilitator scripted
		price GET /get/* $0.01 "A thing"
		price /any/* /shop/report $0.01 "A thing"
	}
	reverse_proxy 127.0.0.1:%s
}
`, s.facilitator, s.address, payTo, s.upstream)
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, binary, "run", "--config", file, "--adapter", "caddyfile")
		cmd.Env = process.Environment(s.dir)
		return cmd, nil
	}
}

func expressCommand(dir, flow string) command {
	return func(ctx context.Context, s *seller) (*exec.Cmd, error) {
		_, port, err := net.SplitHostPort(s.address)
		if err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, "node", "server.mjs", port, s.upstream, s.facilitator, payTo, flow)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "NODE_ENV=production")
		return cmd, nil
	}
}

// start starts it, at the address it had before if it had one, and waits until it
// sells.
func (s *seller) start(ctx context.Context) error {
	if s.address == "" {
		address, err := process.FreeAddress()
		if err != nil {
			return err
		}
		s.address = address
	}
	running, cancel := context.WithCancel(ctx)
	s.cancel = cancel
	cmd, err := s.command(running, s)
	if err != nil {
		return err
	}
	// On an interrupt, and at the end, it is asked to end, and made to later.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if _, err := cmd.StdinPipe(); err != nil { // the end of which ends Express, if this process is killed
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	s.gone = gone
	go func() {
		s.err = cmd.Wait()
		close(gone)
	}()
	if err := s.ready(); err != nil {
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%w\n%s", errors.Join(err, s.stop()), said)
	}
	return nil
}

func (s *seller) ready() error {
	last := errors.New("no answer")
	for range 300 {
		select {
		case <-s.gone:
			return fmt.Errorf("it has ended: %w", s.err)
		case <-time.After(50 * time.Millisecond):
		}
		res, err := http.Get("http://" + s.address + "/get/ready")
		if err != nil {
			last = err
			continue
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.StatusCode == http.StatusPaymentRequired {
			return nil
		}
		last = fmt.Errorf("status %d", res.StatusCode)
	}
	return last
}

// stop stops it, if it runs.
func (s *seller) stop() error {
	s.cancel()
	if s.gone == nil {
		return nil
	}
	select {
	case <-s.gone:
	case <-time.After(30 * time.Second):
		return fmt.Errorf("%s does not stop", s.name)
	}
	var exit *exec.ExitError
	if s.err == nil || errors.As(s.err, &exit) || errors.Is(s.err, context.Canceled) {
		return nil
	}
	return s.err
}
