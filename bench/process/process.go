// Package process is what the benchmarks share that run a Caddy in a process of
// its own.
package process

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
)

const module = "github.com/caddy-paywall/caddy-paywall/"

// Build builds a command of this module, such as bench/gateway.
func Build(ctx context.Context, command, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", to, module+command)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building %s: %w", command, err)
	}
	return nil
}

// FreeAddress is an address of loopback on which nobody listens.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Environment is that of a Caddy that keeps its state in a directory.
func Environment(dir string) []string {
	return append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
}

// Admin asks a Caddy whose admin API is at a Unix socket.
type Admin struct{ *http.Client }

// NewAdmin makes one.
func NewAdmin(socket string) Admin {
	return Admin{&http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Profile fetches a profile, as net/http/pprof names it.
func (a Admin) Profile(name string) ([]byte, error) {
	res, err := a.Get("http://localhost/debug/pprof/" + name)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}
