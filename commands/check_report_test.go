package commands

import (
	"bytes"
	"strings"
	"testing"

	"github.com/caddy-paywall/caddy-paywall/check"
)

// TestReportOfADeadPort: what answered nothing spoke no protocol.
func TestReportOfADeadPort(t *testing.T) {
	for want, r := range map[string]*check.Report{
		"not all were reached: 0 of 1 URLs in every way, with 3 requests, none of which was answered\n": {Targets: 1, Requests: 3, Unreachable: []string{"http://x/"}},
		"closed: 1 of 1 URLs in every way, with 3 requests over HTTP/1.1, HTTP/2\n":                     {Targets: 1, Complete: 1, Requests: 3, Protocols: []string{"HTTP/1.1", "HTTP/2"}},
	} {
		var out bytes.Buffer
		if err := printReport(&out, "table", r); err != nil || !strings.HasSuffix(out.String(), want) {
			t.Errorf("%v %q", err, out.String())
		}
	}
}
