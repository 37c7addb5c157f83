package chain

import (
	"errors"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ethereum/go-ethereum/rpc"
)

const (
	// maxLogText bounds what of a node's text reaches the log.
	maxLogText = 300
	// minSecret is the shortest part of a URL that is taken for a secret.
	minSecret = 8
)

// nodeError is an error of a node with a text that is fit for the log.
type nodeError struct {
	text string
	err  error
}

func (e *nodeError) Error() string { return e.text }
func (e *nodeError) Unwrap() error { return e.err }

// clean makes an error of the node fit for the log: it names the node by its
// host, and holds neither the rest of the URL nor anything that could be a
// payment. errors.Is and errors.As still see the error itself.
func (n *Node) clean(err error) error {
	if err == nil {
		return nil
	}
	// The text of *url.Error begins with the URL.
	inner := err
	if u, ok := errors.AsType[*url.Error](err); ok {
		inner = u.Err
	}
	return &nodeError{text: "node " + n.Host + ": " + cleanText(inner.Error(), n.secrets), err: err}
}

// cleanText makes one bounded line of a text from outside.
func cleanText(s string, secrets []string) string {
	for _, secret := range secrets {
		s = strings.ReplaceAll(s, secret, "[hidden]")
	}
	s, _, _ = strings.Cut(s[:min(len(s), 8*maxLogText)], "\n")
	s = withoutLongRuns(s)
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	if len(s) > maxLogText {
		s = strings.ToValidUTF8(s[:maxLogText], "") + "…"
	}
	return strings.TrimSpace(s)
}

// maxRun is how long a run of letters and digits may be. What is longer is no
// word and no hash, but calldata, a signature or a key.
const maxRun = 90

// withoutLongRuns takes out what is too long to be anything harmless.
func withoutLongRuns(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		run := strings.IndexFunc(s, func(r rune) bool {
			return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("+/=_.-", r)
		})
		if run < 0 {
			run = len(s)
		}
		if run < maxRun {
			b.WriteString(s[:run])
		} else {
			b.WriteString("[long]")
		}
		s = s[run:]
		if s != "" {
			_, size := utf8.DecodeRuneInString(s)
			b.WriteString(s[:size])
			s = s[size:]
		}
	}
	return b.String()
}

// secretsOf lists the parts of a URL that may be an API key.
func secretsOf(u *url.URL) []string {
	var parts []string
	if password, ok := u.User.Password(); ok {
		parts = append(parts, password)
	}
	parts = append(parts, strings.Split(u.EscapedPath(), "/")...)
	for _, values := range u.Query() {
		parts = append(parts, values...)
	}
	var secrets []string
	for _, p := range parts {
		if len(p) >= minSecret {
			secrets = append(secrets, p)
		}
	}
	return secrets
}

// Answered reports whether the error is what a node said to a call, as an error object of
// JSON-RPC 2.0, rather than the lack of an answer.
func Answered(err error) bool {
	_, ok := errors.AsType[rpc.Error](err)
	return ok
}

// Reverted reports whether the error says that the contract refused the call.
// That is a fact about the payment; every other error is one about the node.
func Reverted(err error) bool {
	said, ok := errors.AsType[rpc.Error](err)
	if !ok {
		return false
	}
	if said.ErrorCode() == 3 || said.ErrorCode() == -32015 { // geth and its kin; Nethermind
		return true
	}
	return hasRevertData(err) || Mentions(said, halts...)
}

// errorString is how the data of a revert begins that carries a text: the words of the
// error are a contract's then, whatever the node wrote around them.
const errorString = "0x08c379a0"

func hasRevertData(err error) bool {
	with, ok := errors.AsType[rpc.DataError](err)
	if !ok {
		return false
	}
	data, ok := with.ErrorData().(string)
	return ok && (strings.HasPrefix(strings.ToLower(data), errorString) || customError.MatchString(data))
}

// customError is what else a contract reverts with: four bytes that name an error, and its
// values.
var customError = regexp.MustCompile(`^0x[0-9a-fA-F]{8}([0-9a-fA-F]{64})*$`)

// halts are the words for a call that ran and did not end well; the last ones are
// those of nodes with revm inside, as anvil.
var halts = []string{
	"revert", "out of gas", "gas required exceeds", "invalid opcode", "invalid jump", "stack underflow",
	"evm error outofgas", "evm error memory", "evm error invalid", "evm error stack", "evm error opcodenotfound", "evm error notactivated",
	"evm error statechange", "evm error callnotallowed", "evm error precompile", "evm error outofoffset",
}

// NeverSent reports whether the error proves that a call did not reach the node,
// or was turned away at its door.
func NeverSent(err error) bool {
	if status, ok := errors.AsType[rpc.HTTPError](err); ok {
		switch status.StatusCode {
		case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusTooManyRequests:
			return true
		}
		return status.StatusCode/100 == 3 // redirects are not followed
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return true
	}
	_, noSuchHost := errors.AsType[*net.DNSError](err)
	return noSuchHost || errors.Is(err, errNoRoom)
}

// Mentions reports whether the answer of a node has one of some words in it, whatever their
// case; they are given in lower case. Nodes have no codes for most of what they say. Only
// their own words count, of all nodes whose errors are joined: our text around them begins
// with the name of the host, which can have such a word in it.
func Mentions(err error, words ...string) bool {
	return slices.ContainsFunc(answersIn(err), func(said rpc.Error) bool {
		text := strings.ToLower(said.Error())
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	})
}

// answersIn lists what nodes have answered, of an error that may join those of several.
func answersIn(err error) (list []rpc.Error) {
	switch e := err.(type) { //nolint:errorlint // every error of the tree is looked at
	case rpc.Error:
		return []rpc.Error{e}
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			list = append(list, answersIn(one)...)
		}
	case interface{ Unwrap() error }:
		return answersIn(e.Unwrap())
	}
	return list
}
