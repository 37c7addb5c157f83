// Package page is what people see when they open a priced URL in a browser.
package page

import _ "embed"

// Default is a page without scripts: it says that the URL is for software that
// pays. What it costs stands in the challenge.
//
//go:embed default.html
var Default []byte
