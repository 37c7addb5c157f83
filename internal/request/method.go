package request

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// PriceMethod is the method that a request has for the price list.
func PriceMethod(r *http.Request) string {
	if r.Method == http.MethodConnect && r.ProtoMajor >= 2 {
		return http.MethodGet // extended CONNECT is how HTTP/2 and 3 say GET with Upgrade
	}
	return r.Method
}

// Method is the method of a request, with those and the paths and hosts that it names
// elsewhere: to some upstreams they make it another request.
func Method(r *http.Request, o Overrides) string {
	method := strings.Join(append([]string{r.Method}, o.methods...), ",")
	if named := slices.Concat(o.paths, o.hosts); len(named) > 0 {
		method += " " + Fingerprint(named...)
	}
	return method
}

// MayAct says whether a request may have effects, by its method or by one that it
// names elsewhere. A tunnel is no effect, but a POST that asks for one is a POST.
func MayAct(r *http.Request, o Overrides) bool {
	return !Safe(r.Method) && r.Method != http.MethodConnect || o.Act()
}

// Tunnels says whether a request wants to become a tunnel.
func Tunnels(r *http.Request) bool {
	return r.Method == http.MethodConnect ||
		r.Header.Get("Upgrade") != "" && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade")
}

// Safe says whether a method has no effects (RFC 9110, 9.2.1; QUERY is RFC 10008).
func Safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, "QUERY":
		return true
	}
	return false
}

// Fingerprint is a short digest of some texts.
func Fingerprint(texts ...string) string {
	sum := sha256.New()
	for _, text := range texts {
		_, _ = fmt.Fprintf(sum, "%d:%s", len(text), text)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}
