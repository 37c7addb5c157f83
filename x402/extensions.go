package x402

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// dynamicInfo are members of an extension's info that a server makes anew for
// each challenge, so that an echo need not repeat the current ones.
var dynamicInfo = map[string][]string{
	"sign-in-with-x": {"nonce", "issuedAt", "expirationTime"},
	"offer-receipt":  {"offers"},
}

// builderCode is the one extension with rules of its own: the list s may grow,
// and a is ours even when we did not declare it.
const (
	builderCode    = "builder-code"
	maxBuilderList = 10
)

// CheckExtensions compares the payer's echo of our extensions with what we
// declared: of each extension that it repeats, info must contain our info. An
// echo is the payer's choice; nothing, and extensions that we did not declare,
// are fine. Either argument may be nil. The error is a *Error with
// CodeExtensionEchoMismatch.
func CheckExtensions(declared, echoed jsontext.Value) error {
	if len(echoed) == 0 || bytes.Equal(declared, echoed) {
		return nil
	}
	var ours, theirs map[string]map[string]any
	if len(declared) > 0 {
		if err := json.Unmarshal(declared, &ours); err != nil {
			return &Error{Code: CodeExtensionEchoMismatch, Err: fmt.Errorf("declared extensions: %w", err)}
		}
	}
	var all map[string]jsontext.Value
	if json.Unmarshal(echoed, &all) != nil {
		return refuse(CodeExtensionEchoMismatch, "extensions: not a JSON object")
	}
	theirs = make(map[string]map[string]any, len(all))
	for name, v := range all {
		if _, declared := ours[name]; !declared && name != builderCode || v.Kind() == jsontext.KindNull {
			continue
		}
		var m map[string]any
		if json.Unmarshal(v, &m) != nil {
			return refuse(CodeExtensionEchoMismatch, "echoed extension: not a JSON object")
		}
		theirs[name] = m
	}
	for name, echo := range theirs {
		want, _ := ours[name]["info"].(map[string]any)
		got, _ := echo["info"].(map[string]any)
		var ok bool
		if name == builderCode {
			ok = builderCodeMatches(want, got)
		} else {
			for _, m := range dynamicInfo[name] {
				delete(want, m)
			}
			ok = contains(want, got)
		}
		if !ok {
			return refuse(CodeExtensionEchoMismatch, "echoed extension: info changed")
		}
	}
	return nil
}

func builderCodeMatches(want, got map[string]any) bool {
	if a, sent := got["a"]; (sent || want["a"] != nil) && !reflect.DeepEqual(a, want["a"]) {
		return false
	}
	ours, _ := want["s"].([]any)
	theirs, isList := got["s"].([]any)
	if got["s"] != nil && !isList || len(theirs) > maxBuilderList {
		return false
	}
	for _, code := range ours {
		if !slices.ContainsFunc(theirs, func(c any) bool { return reflect.DeepEqual(c, code) }) {
			return false
		}
	}
	return true
}
