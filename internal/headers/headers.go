// Package headers reads the names and lists of HTTP headers as everybody may read them.
package headers

import (
	"iter"
	"strings"
)

// MaxNames is how many names we read of a header that lists some.
const MaxNames = 100

// Is says whether a header's name is one of a list, in any spelling that
// CGI and its heirs take for the same.
func Is(name string, list []string) bool {
	for _, want := range list {
		if len(name) == len(want) && HasPrefix(name, want) {
			return true
		}
	}
	return false
}

// HasPrefix says whether a header's name begins with a prefix, in any
// spelling that CGI and its heirs take for the same: they ignore case, and turn
// every other character into an underscore.
func HasPrefix(name, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if foldByte(name[i]) != foldByte(prefix[i]) {
			return false
		}
	}
	return true
}

func foldByte(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c | 0x20
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	}
	return '_'
}

// Members are the members of a comma-separated header; commas in quotes
// separate nothing. A member whose quotes do not end is left out: behind it
// nobody knows what is quoted.
func Members(values []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, value := range values {
			start, quoted := 0, false
			for i := 0; i <= len(value); i++ {
				switch {
				case i == len(value) && quoted:
				case i == len(value) || value[i] == ',' && !quoted:
					if !yield(strings.TrimSpace(value[start:i])) {
						return
					}
					start = i + 1
				case value[i] == '\\' && quoted && i+1 < len(value):
					i++
				case value[i] == '"':
					quoted = !quoted
				}
			}
		}
	}
}
