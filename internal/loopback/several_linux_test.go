package loopback

import (
	"context"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSeveral(t *testing.T) {
	address := FreeAddress(t)
	shared := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); e != nil {
			return e
		}
		return err
	}}
	listen := func() net.Listener {
		l, err := shared.Listen(context.Background(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	expect := func(want bool) {
		t.Helper()
		if yes, known := several(); yes != want || !known {
			t.Fatalf("several: %v, known: %v", yes, known)
		}
	}
	expect(false)
	first := listen()
	expect(false)
	second := listen()
	expect(true)
	first.Close()
	expect(false)
	second.Close()
	Settle(t)
}
