package devchain

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"go.uber.org/zap"
)

// landing is for people who open the address in a browser.
const landing = `TEST MONEY: a development chain of caddy-paywall. Nothing on it is worth anything.

This is a JSON-RPC endpoint for wallets and clients (chain id %d). The chain lives
in the memory of the process that started it and ends with it.

Test dollar  %s
Accounts     of the mnemonic "%s";
             each but the first has 10,000 test dollars
Another one  curl -X POST http://%s/fund/<address>
             gives it 100 test dollars and one ether
`

// CheckListen says what is wrong with an address to listen on, without opening it.
// It is on loopback or not at all: whoever reaches the chain has all the keys, and
// a chain that others can reach is one that somebody will take for real.
func CheckListen(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w", address, err)
	}
	if !isLoopback(host) {
		return fmt.Errorf("address %q: a development chain listens on loopback only, like 127.0.0.1:8545", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("address %q: the port must be a number up to 65535", address)
	}
	return nil
}

// listen opens the port.
func listen(address string) (net.Listener, error) {
	if err := CheckListen(address); err != nil {
		return nil, err
	}
	return net.Listen("tcp", address) //nolint:noctx // nothing to wait for
}

// isLoopback tells whether a host is this machine by its very name. Other names
// are not resolved.
func isLoopback(host string) bool {
	host = strings.ToLower(host)
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// newServer serves JSON-RPC, the landing page and the tap.
func (c *Chain) newServer(logger *zap.Logger) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintf(w, landing, ChainID, Dollar, Mnemonic, r.Host)
	})
	mux.HandleFunc("POST /{$}", func(w http.ResponseWriter, r *http.Request) {
		if err := c.sealer.freshen(); err != nil {
			logger.Error("sealing a block", zap.Error(err))
		}
		c.backend.rpc.ServeHTTP(w, r)
	})
	mux.HandleFunc("POST /fund/{address}", c.serveFund)
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !fromHere(r) {
				http.Error(w, "this development chain serves this machine only", http.StatusForbidden)
				return
			}
			allowOrigin(w.Header(), r)
			if r.Method == http.MethodOptions {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			mux.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          zap.NewStdLog(logger),
	}
}

// serveFund is the tap: it fills the account of anyone who asks.
func (c *Chain) serveFund(w http.ResponseWriter, r *http.Request) {
	given := r.PathValue("address")
	if !common.IsHexAddress(given) {
		http.Error(w, fmt.Sprintf("%q is no address", given), http.StatusBadRequest)
		return
	}
	account := common.HexToAddress(given)
	if err := c.Fund(r.Context(), account); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = fmt.Fprintf(w, "TEST MONEY: %s got 100 test dollars and one ether\n", account)
}

// fromHere refuses names that point to this machine without being of it, with
// which pages of the web get around the browser's rules (DNS rebinding).
func fromHere(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return isLoopback(strings.Trim(host, "[]"))
}

// allowOrigin lets pages that this machine serves, and wallets in the browser, use
// the chain. Pages of the web have no business here, though all they could spend
// is worthless.
func allowOrigin(h http.Header, r *http.Request) {
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	u, err := url.Parse(origin)
	if err != nil {
		return
	}
	if !isLoopback(u.Hostname()) && !strings.HasSuffix(u.Scheme, "-extension") {
		return
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Methods", "GET, POST")
	// All that a client library may want to send; "*" would not cover all of it.
	if wanted := r.Header.Get("Access-Control-Request-Headers"); wanted != "" {
		h.Set("Access-Control-Allow-Headers", wanted)
	}
	if r.Header.Get("Access-Control-Request-Private-Network") != "" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
	h.Set("Access-Control-Max-Age", "600")
}

// web3 is the namespace web3 of JSON-RPC. Ours, because clients show the version
// as the name of what they are connected to.
type web3 struct{}

// ClientVersion implements web3_clientVersion.
func (web3) ClientVersion() string {
	return fmt.Sprintf("caddy-paywall-devchain/%s/%s-%s/%s",
		strings.ReplaceAll(label, " ", "-"), runtime.GOOS, runtime.GOARCH, runtime.Version())
}
