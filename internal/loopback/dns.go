package loopback

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// DNS is a server of the DNS that says what a test wants it to.
type DNS struct {
	Asked atomic.Int64
	Hangs atomic.Bool // it answers nothing

	address string
	mu      sync.Mutex
	names   map[string]string       // by the reverse name of an address
	addrs   map[string][]netip.Addr // by name
}

// NewDNS starts one.
func NewDNS(t testing.TB) *DNS {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	d := &DNS{address: conn.LocalAddr().String(), names: map[string]string{}, addrs: map[string][]netip.Addr{}}
	go d.serve(conn)
	return d
}

// Address is where it is.
func (d *DNS) Address() string { return d.address }

// Name gives an address of the fourth version a name, as its owner can.
func (d *DNS) Name(addr, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	parts := strings.Split(addr, ".")
	d.names[parts[3]+"."+parts[2]+"."+parts[1]+"."+parts[0]+".in-addr.arpa."] = name + "."
}

// Confirm gives a name an address, as the name's owner can.
func (d *DNS) Confirm(name, addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addrs[name+"."] = append(d.addrs[name+"."], netip.MustParseAddr(addr))
}

func (d *DNS) serve(conn net.PacketConn) {
	buffer := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		d.Asked.Add(1)
		if d.Hangs.Load() {
			continue
		}
		if answer := d.answer(buffer[:n]); answer != nil {
			_, _ = conn.WriteTo(answer, from)
		}
	}
}

func (d *DNS) answer(asked []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(asked) != nil || len(m.Questions) != 1 {
		return nil
	}
	question := m.Questions[0]
	name := strings.ToLower(question.Name.String())
	m.Response, m.Answers, m.Additionals = true, nil, nil
	header := dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: question.Class, TTL: 60}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, exists := d.addrs[name]
	switch question.Type {
	case dnsmessage.TypePTR:
		if said, ok := d.names[name]; ok {
			exists = true
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.PTRResource{PTR: dnsmessage.MustNewName(said)}})
		}
	case dnsmessage.TypeA:
		for _, addr := range d.addrs[name] {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: addr.As4()}})
		}
	}
	if !exists {
		m.RCode = dnsmessage.RCodeNameError
	}
	packed, err := m.Pack()
	if err != nil {
		return nil
	}
	return packed
}
