// Package loopback helps tests that run real servers: addresses to listen on,
// the end of those that listened before, and certificates.
package loopback

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// The ports are from below what systems give to those who do not ask for one (32768
// and up on Linux, 49152 on others): between the look whether a port is free and
// the server that listens on it, no connection of another test takes it.
const (
	lowest  = 10_000
	highest = 32_000
)

var (
	mu    sync.Mutex
	given = map[string]bool{}
)

// FreeAddress finds an address of 127.0.0.1 that is free for TCP and UDP. It gives
// none twice in a process.
func FreeAddress(t testing.TB) string {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", lowest+rand.IntN(highest-lowest)) //nolint:gosec // no secret
		if !given[address] && free(address) {
			given[address] = true
			return address
		}
	}
	t.Fatal("no port of loopback is free")
	return ""
}

func free(address string) bool {
	var c net.ListenConfig
	l, err := c.Listen(context.Background(), "tcp", address)
	if err != nil {
		return false
	}
	p, err := c.ListenPacket(context.Background(), "udp", address)
	if err == nil {
		err = p.Close()
	}
	return errors.Join(err, l.Close()) == nil
}

// Settle waits until every address that FreeAddress has given has one listener at
// most. Caddy takes a new config into service beside the old one, on the same port
// (SO_REUSEPORT), and closes the old listener after that in the background. The
// connections in that one's queue are reset, with or without a paywall; a test
// that is not about reloads must not meet that.
func Settle(t testing.TB) {
	t.Helper()
	for range 1000 {
		several, known := several()
		if !known {
			time.Sleep(100 * time.Millisecond) // not Linux: a moment must do
			return
		}
		if !several {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("an old listener does not end")
}

// several says whether an address that was given has more than one listener, as
// far as the system tells (proc_pid_net(5)).
func several() (yes, known bool) {
	f, err := os.Open("/proc/self/net/tcp")
	if err != nil {
		return false, false
	}
	defer f.Close() //nolint:errcheck // it was only read
	const listening = "0A"
	count := map[string]int{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 3 && fields[3] == listening {
			count[fields[1]]++
		}
	}
	if lines.Err() != nil {
		return false, false
	}
	mu.Lock()
	defer mu.Unlock()
	for address := range given {
		if count[kernel(address)] > 1 {
			return true, true
		}
	}
	return false, true
}

// kernel writes an address as the kernel does: the bytes of the IP in the order
// of the machine, which is little-endian wherever this runs.
func kernel(address string) string {
	a, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return ""
	}
	ip := a.IP.To4()
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], a.Port)
}
