package model

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Spellings returns n different ways to write a path, the same ones on every
// call: first each way of spellings alone, at each place, then several at once.
func Spellings(path string, n int) []string {
	var all []string
	seen := map[string]bool{}
	add := func(s string) {
		if !seen[s] && len(all) < n {
			seen[s] = true
			all = append(all, s)
		}
	}
	single := Ways(path)
	for _, s := range single {
		add(s)
	}
	random := rand.New(rand.NewPCG(1, 402))
	for tries := 0; len(all) < n && tries < 100*n; tries++ {
		s := single[random.IntN(len(single))]
		for range 1 + random.IntN(2) {
			ways := Ways(s)
			s = ways[random.IntN(len(ways))]
		}
		if len(s) < 300 {
			add(s)
		}
	}
	return all
}

// Ways returns a path written in each single way, at each place.
func Ways(path string) []string {
	var all []string
	at := func(i, j int, s string) { all = append(all, path[:i]+s+path[j:]) }
	for i := 1; i < len(path); i++ {
		c := path[i]
		at(i, i+1, fmt.Sprintf("%%%02x", c))
		at(i, i+1, fmt.Sprintf("%%%02X", c))
		at(i, i+1, fmt.Sprintf("%%25%02x", c))
		at(i, i+1, fmt.Sprintf("%%u%04x", c))
		if c < 0x80 {
			at(i, i+1, fmt.Sprintf("%%%02x%%%02x", 0xc0|c>>6, 0x80|c&0x3f))
			at(i, i+1, fmt.Sprintf("%%e0%%%02x%%%02x", 0x80|c>>6, 0x80|c&0x3f))
			at(i, i+1, fmt.Sprintf("%%f0%%80%%%02x%%%02x", 0x80|c>>6, 0x80|c&0x3f))
		}
		switch {
		case 'a' <= c && c <= 'z':
			at(i, i+1, strings.ToUpper(path[i:i+1]))
			at(i, i+1, fmt.Sprintf("%%ef%%bd%%%02x", 0x81+c-'a')) // full width
		case c >= 0x80:
			continue
		}
		switch c {
		case 'k':
			at(i, i+1, "%e2%84%aa") // the Kelvin sign
		case 's':
			at(i, i+1, "%c5%bf") // the long s
		}
		at(i, i, "%09")
		at(i, i, "%0a")
		at(i, i, "%7f")
	}
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		for _, s := range []string{
			"//", "///", "/./", "/%2e/", "/x/../", "/x/%2e%2e/", "/x/.%2E/", "/x/%252e%252e/", "/x//../", "/x/..//",
			"/;/", "/;a=b/", "/x/..;/", "/x/..;a=b/", "/x/%2e%2e;/", "/%3b/", "/%3ba/", "/.;/", "/x%2f../", "/x%2f..%2f", "/x/..%2f", "/x%5c..%5c",
			`/x\..\`, `/\`, "/%5c", "/static/../", "/static%2f%2e%2e/", "/a/b/../../", "/static/x.css/../../", "/static/x.css/..;/../",
			"/%20/../", "/%00/../", "/index.php/", "/x/index.php/../", "/ /../", "/%ef%bc%8e%ef%bc%8e/x/../",
		} {
			at(i, i+1, s)
		}
		if i == 0 {
			continue
		}
		for _, s := range []string{
			`\`, "%5c", "%5C", "%255c", "%2f", "%2F", "%252f", "%252F", "%c0%af", "%e0%80%af", "%f0%80%80%af", "%c1%9c", "%u002f", "%u005c", "%ef%bc%8f",
			";/", ";a/", ";a=b;c/", "%3b/", "%3ba/", "%253ba/", "%20/", "./", "../", "%2e/", "%2e%20/", "%09/", "%00/", ";.css/", "::$DATA/",
		} {
			at(i, i+1, s)
		}
	}
	for _, s := range []string{
		"/", "//", "/.", "/./", "/x/..", "/x/../", "/%2e", "/.%2f", "/x/%2e%2e", "/x/..;/", "/static/..", "/;", "/.;a", "/;a=b/",
		"%00", "%00.css", "%00/static/x.css", "%2500", "%2500.css", "%3f", "%3f.css", "%3fx=1", "%253f.css", "%23", "%23.css", "%2523.css",
		"%0a", "%0d%0a", "%0a.css", "%09", "%20", "%20%20", "%20.", ".", "..", "...", "%2e", ". .", "%20/", "::$DATA", "::$DATA.css", "%3a%3a$DATA", "::$INDEX_ALLOCATION/x.css",
		";", ";a", ";a=b", ";.css", ";/static/x.css", ";a/b.css", "%3b.css", "%3ba/b.css", "%253b.css", `\`, "%5c", "%5c..%5cx%5c..", `\.`, "/%5c",
		"?", "?x", "?.css", "?/../static/x.css", "%c0%80", "%c0%80.css", "%c0%bf.css", "%u0000.css", "%u003f.css", "%c0%ae/",
		"/x/..%00/..", "%e0%80%80", "%7f", "%ef%bc%8f", "%c2%a0",
		".json", ".tar.gz", "%2ehtml", ".css", "%252exml", ".json/", ".a%2fb",
		"/x", "/x.css", "/public/..;/x.js", "%2fstatic/x.css",
	} {
		all = append(all, path+s)
	}
	for _, s := range []string{
		"/", "//", "/.", "/..", "/../..", "/%2e%2e", "/x/..", "/static/..", "/static/%2e%2e", "/static/..;", "/static/..;x=y", "/static%2f..", "/static%2F%2e%2e",
		`/static\..`, "/static%5c..", "/static/x.css/../..", "/static/x.css;/../..", "/static/%252e%252e", "/static%252f..", "/static/..%00/..", "/;", "/;a=b", "/%2f", `/\`, `\`, "/%5c",
		"/index.php", "/app.php", "/INDEX.PHP", "/index.php;x", "/index%2ephp", "/index.php//", "/static/../index.php", "/%20", "/%09/..", "/./", "/static/.%c0%ae", "/%c0%ae%c0%ae", "/public%3f/..", "/public%23/..",
		"/public/..", "/public;/..", "/%u002e%u002e", "/static/ /../..",
		"//x", "//x:80", "//a@static/", "///x", `/\x`, `\\x`, "//x.css", "/%2f/x", "//static/..", "//;x",
	} {
		all = append(all, s+path)
	}
	upper := strings.ToUpper(path)
	all = append(all, upper, swapCase(path, 0), swapCase(path, 1), all2(path, "%%%02x"), all2(path, "%%25%02x"), all2(path, "%%u%04x"))
	return all
}

// swapCase writes every other letter in upper case.
func swapCase(s string, odd int) string {
	b := []byte(s)
	for i := odd; i < len(b); i += 2 {
		if 'a' <= b[i] && b[i] <= 'z' {
			b[i] -= 'a' - 'A'
		}
	}
	return string(b)
}

// all2 writes every byte but the first in a format.
func all2(s, format string) string {
	var b strings.Builder
	b.WriteByte(s[0])
	for i := 1; i < len(s); i++ {
		fmt.Fprintf(&b, format, s[i])
	}
	return b.String()
}
