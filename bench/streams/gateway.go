//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/caddy-paywall/caddy-paywall/bench/process"
)

const payTo = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"

// site is the upstream: endless event streams, with an event every ten seconds.
type site struct {
	http.Server
	address string
}

func startSite() (*site, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &site{address: l.Addr().String()}
	s.ReadHeaderTimeout = time.Minute
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		ticker := time.NewTicker(10 * time.Second)
		defer ticker.Stop()
		for {
			_, _ = io.WriteString(w, "data: tick\n\n")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-ticker.C:
			}
		}
	})
	go func() { _ = s.Serve(l) }()
	return s, nil
}

// gateway is a Caddy in a process of its own.
type gateway struct {
	address string
	sells   bool
	cmd     *exec.Cmd
	admin   process.Admin
}

func startGateway(dir, binary, ledger, site string) (*gateway, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	address, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "admin.sock")
	g := &gateway{address: address, sells: ledger != "", admin: process.NewAdmin(socket)}
	var app, block string
	if g.sells {
		app = "paywall {\n ledger " + ledger + "\n facilitator yes yes\n }"
		block = "paywall {\n accept base-sepolia usdc " + payTo + "\n facilitator yes\n price /events/* $0.01\n }"
	}
	file := filepath.Join(dir, "Caddyfile")
	text := fmt.Sprintf("{\n admin unix/%s\n persist_config off\n auto_https off\n log {\n level ERROR\n }\n %s\n}\nhttp://%s {\n %s\n reverse_proxy %s\n}\n", socket, app, g.address, block, site)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	g.cmd = exec.Command(binary, "run", "--config", file, "--adapter", "caddyfile")
	g.cmd.Env = process.Environment(dir)
	g.cmd.Stderr = os.Stderr
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	want := http.StatusOK
	if g.sells {
		want = http.StatusPaymentRequired
	}
	for range 200 {
		time.Sleep(50 * time.Millisecond)
		res, err := http.Get("http://" + g.address + "/events/ready")
		if err != nil {
			continue
		}
		_ = res.Body.Close()
		if res.StatusCode == want {
			return g, nil
		}
	}
	return nil, errors.Join(errors.New("the gateway does not start"), g.stop())
}

func (g *gateway) stop() error {
	if err := g.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = g.cmd.Wait() // it was killed: streams would keep it
	return nil
}

// usage is what a process uses: bytes, and goroutines.
type usage struct{ resident, heap, stacks, goroutines int }

func (u usage) minus(o usage) usage {
	return usage{u.resident - o.resident, u.heap - o.heap, u.stacks - o.stacks, u.goroutines - o.goroutines}
}

var (
	heapLine      = regexp.MustCompile(`# HeapAlloc = (\d+)`)
	stackLine     = regexp.MustCompile(`# Stack = (\d+) /`)
	goroutineLine = regexp.MustCompile(`goroutine profile: total (\d+)`)
	residentLine  = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)
)

// settle waits until what was under way is over, and measures after a garbage
// collection.
func (g *gateway) settle() (u usage, err error) {
	time.Sleep(2 * time.Second)
	for range 2 { // stacks shrink in a collection, and are given back in the next
		if u.heap, u.stacks, err = g.memory(); err != nil {
			return usage{}, err
		}
	}
	text, err := g.admin.Profile("goroutine?debug=1")
	if err != nil {
		return usage{}, err
	}
	u.goroutines = number(goroutineLine, text)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
	if err != nil {
		return usage{}, err
	}
	u.resident = number(residentLine, status) * 1024
	return u, nil
}

func (g *gateway) memory() (heap, stacks int, err error) {
	text, err := g.admin.Profile("heap?gc=1&debug=1")
	if err != nil {
		return 0, 0, err
	}
	return number(heapLine, text), number(stackLine, text), nil
}

func number(line *regexp.Regexp, text []byte) int {
	m := line.FindSubmatch(text)
	if m == nil {
		panic("no " + line.String() + " in what the gateway says")
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		panic(err)
	}
	return n
}
