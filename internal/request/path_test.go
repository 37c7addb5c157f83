package request

import (
	"net/url"
	"testing"
)

// The shortcut to a path as it goes over the wire changes nothing.
func TestWirePath(t *testing.T) {
	for c := range 256 {
		u := &url.URL{Path: "/a" + string([]byte{byte(c)}) + "b"}
		if got, want := wirePath(u), u.EscapedPath(); got != want {
			t.Errorf("byte %#x: %q, want %q", c, got, want)
		}
	}
	for _, u := range []*url.URL{{Path: ""}, {Path: "*"}, {Path: "/a b", RawPath: "/a%20b"}, {Path: "/a/b", RawPath: "/a%2Fb"}, {Path: "/ab", RawPath: "/other"}, {Path: "ab"}} {
		if got, want := wirePath(u), u.EscapedPath(); got != want {
			t.Errorf("%+v: %q, want %q", u, got, want)
		}
	}
}
