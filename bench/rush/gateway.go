//go:build linux

package main

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/caddy-paywall/caddy-paywall/bench/process"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

const (
	payTo = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
	goods = "/mint"
)

// gateway is a Caddy in a process of its own that sells the mint's numbers, and
// settles by itself.
type gateway struct {
	dir      string
	address  string
	program  string
	ledger   string // its file, or ""
	accounts map[common.Address]bool
	pid      int
	admin    process.Admin
	gone     chan error
	stopped  atomic.Bool
	offer    x402.Requirement
}

func (r *rush) startGateway(keys []*ecdsa.PrivateKey) (*gateway, error) {
	address, err := process.FreeAddress()
	if err != nil {
		return nil, err
	}
	g := &gateway{
		dir: r.dir, address: address, program: r.options.gateway, accounts: make(map[common.Address]bool),
		admin: process.NewAdmin(filepath.Join(r.dir, "admin.sock")), gone: make(chan error, 1),
	}
	var signers []string
	for i, k := range keys {
		file := filepath.Join(r.dir, fmt.Sprintf("key%d", i))
		if err := os.WriteFile(file, []byte(hex.EncodeToString(crypto.FromECDSA(k))), 0o600); err != nil {
			return nil, err
		}
		signers = append(signers, "{file."+file+"}")
		g.accounts[crypto.PubkeyToAddress(k.PublicKey)] = true
	}
	file := filepath.Join(r.dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(r.caddyfile(g, signers)), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(r.dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(g.program, "run", "--config", file, "--adapter", "caddyfile")
	cmd.Env = process.Environment(r.dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	g.pid = cmd.Process.Pid
	go func() { g.gone <- cmd.Wait() }()
	if err := g.ready(); err != nil {
		return nil, fmt.Errorf("%w\n%s", errors.Join(err, g.stop()), g.log())
	}
	return g, nil
}

func (r *rush) caddyfile(g *gateway, signers []string) string {
	ledger := "memory i_accept_loss"
	if r.ledger != "memory" {
		g.ledger = filepath.Join(r.dir, "ledger.db")
		ledger = "sqlite " + g.ledger
	}
	var words string
	if r.options.batch != "" {
		words += "\n\t\t\t\tbatch " + r.options.batch
	}
	if r.budget != "" {
		words += "\n\t\t\t\tgas_budget " + r.budget
	}
	return fmt.Sprintf(`{
	admin unix/%s/admin.sock
	persist_config off
	auto_https off
	log {
		level ERROR
	}
	servers {
		# All payers come from here, and say in X-Forwarded-For from where else.
		trusted_proxies static 127.0.0.1/32
	}
	paywall {
		ledger %s
		facilitator own evm {
			network base-sepolia {
				rpc    %s
				signer %s%s
			}
		}
	}
}
http://%s {
	paywall {
		accept base-sepolia usdc %s
		facilitator own
		settle first
		price POST %s $0.01 "A numbered token"
	}
	reverse_proxy %s
}
`, r.dir, ledger, r.chain.url, strings.Join(signers, " "), words, g.address, payTo, goods, r.mint.address)
}

// ready waits until the gateway makes an offer.
func (g *gateway) ready() error {
	last := errors.New("no answer")
	for range 200 {
		select {
		case err := <-g.gone:
			g.gone <- err
			return fmt.Errorf("it has ended: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
		res, err := http.Post("http://"+g.address+goods, "application/json", strings.NewReader("{}"))
		if err != nil {
			last = err
			continue
		}
		_ = res.Body.Close()
		if last = fmt.Errorf("status %d", res.StatusCode); res.StatusCode != http.StatusPaymentRequired {
			continue
		}
		c, err := x402.DecodeChallenge(res.Header.Get(x402.HeaderPaymentRequired))
		if err != nil {
			return err
		}
		g.offer = c.Accepts[0]
		return nil
	}
	return last
}

// stop stops the gateway, once.
func (g *gateway) stop() error {
	if g.stopped.Swap(true) {
		return nil
	}
	if res, err := g.admin.Post("http://localhost/stop", "", nil); err == nil {
		_ = res.Body.Close()
	}
	select {
	case err := <-g.gone:
		return err
	case <-time.After(150 * time.Second): // it waits for settlements for two minutes
		return errors.New("the gateway does not stop")
	}
}

func (g *gateway) log() []byte {
	b, _ := os.ReadFile(filepath.Join(g.dir, "log"))
	return b
}

// memory reads what the gateway holds now, and has held at most, in kB.
func (g *gateway) memory() (now, most int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.pid))
	for line := range bytes.Lines(b) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 {
			continue
		}
		switch n, _ := strconv.Atoi(fields[1]); fields[0] {
		case "VmRSS:":
			now = n
		case "VmHWM:":
			most = n
		}
	}
	return now, most
}

// processor is how much processor time a process has used.
func processor(pid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := bytes.Cut(b, []byte(") "))
	fields := strings.Fields(string(after))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * time.Second / 100
}

// saveProfile writes a profile of the gateway into a file.
func (g *gateway) saveProfile(name, file string) error {
	b, err := g.admin.Profile(name)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}
