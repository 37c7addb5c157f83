package routes

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A price list of 100,000 lines is checked in seconds, also where others answer
// before it.
func BenchmarkCheckLarge(b *testing.B) {
	var lines []string
	for i := range 100_000 {
		lines = append(lines, fmt.Sprintf(`{"paths":["/articles/%d/*"],"amount":"$0.01"}`, i))
	}
	raw := `{"apps":{"http":{"servers":{"s":{"listen":[":80"],"routes":[{"match":[{"host":["a.test"]}],"handle":[{"handler":"subroute","routes":[
		{"match":[{"path":["/static/*"]}],"handle":[{"handler":"file_server"}]},
		{"match":[{"path":["/api/*"]}],"handle":[{"handler":"reverse_proxy"}]},
		{"handle":[{"handler":"paywall","prices":[` + strings.Join(lines, ",") + `]}]},
		{"handle":[{"handler":"reverse_proxy","upstreams":[{"dial":"127.0.0.1:1"}]}]}]}]}]}}}}}`
	for b.Loop() {
		start := time.Now()
		c, err := Parse([]byte(raw))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms/parse")
		if findings, err := Check(c); err != nil || len(findings) > 0 {
			b.Fatal(findings, err)
		}
	}
}

// BenchmarkCheckFiles: as many lines before a file server, each with other names
// to look for.
func BenchmarkCheckFiles(b *testing.B) {
	var lines []string
	for i := range 100_000 {
		lines = append(lines, fmt.Sprintf(`{"paths":["/articles/%d/*"],"amount":"$0.01"}`, i))
	}
	raw := site(`{"handle":[{"handler":"paywall","prices":[` + strings.Join(lines, ",") + `]}]},
		{"handle":[{"handler":"rewrite","uri_substring":[{"find":"/new","replace":""}]},{"handler":"file_server","precompressed":{"br":{},"gzip":{}}}]}`)
	for b.Loop() {
		c, err := Parse([]byte(raw))
		if err != nil {
			b.Fatal(err)
		}
		if findings, err := Check(c); err != nil || len(findings) != 1 {
			b.Fatal(findings, err)
		}
	}
}

// BenchmarkCheckSites: many sites with a gate each.
func BenchmarkCheckSites(b *testing.B) {
	var sites []string
	for i := range 2_000 {
		sites = append(sites, fmt.Sprintf(`{"match":[{"host":["s%d.test"]}],"terminal":true,"handle":[{"handler":"subroute","routes":[
			{"handle":[{"handler":"paywall","prices":[{"paths":["/paid/*"],"amount":"$0.01"}]},{"handler":"reverse_proxy","upstreams":[{"dial":"127.0.0.1:%d"}]}]}]}]}`, i, i))
	}
	raw := `{"apps":{"http":{"servers":{"s":{"listen":[":80"],"routes":[` + strings.Join(sites, ",") + `]}}}}}`
	for b.Loop() {
		c, err := Parse([]byte(raw))
		if err != nil {
			b.Fatal(err)
		}
		if findings, err := Check(c); err != nil || len(findings) > 0 {
			b.Fatal(findings, err)
		}
	}
}
