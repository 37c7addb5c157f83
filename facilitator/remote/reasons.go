package remote

import (
	"slices"
	"strings"
)

// nothingMoved reports whether a refusal with this reason proves that the call
// moved no money, so that the payer can be told to sign again. Reasons are
// opaque text with hundreds of spellings, so the question is turned round: a
// reason is a proof unless it says, or leaves open, that a transaction was sent
// by this call or by an earlier one.
//
// A wrong no costs the payer a wait. A wrong yes costs a second payment. So no
// reason is no proof, and neither is one that we cannot read.
func nothingMoved(reason, message string) bool {
	squeezed, ok := squeeze(reason)
	if !ok {
		return false
	}
	for _, before := range beforeSending {
		squeezed = strings.ReplaceAll(squeezed, before, "|")
	}
	if containsAny(squeezed, opens) {
		return false
	}
	// The message is prose, often of a node, and says "revert" and "failed" of
	// simulations too. Only what cannot be meant of them counts.
	prose, _ := squeeze(message)
	return !containsAny(prose, opensInProse)
}

// beforeSending are the failures that lie before a transaction is sent, and
// would otherwise sound like one that was.
var beforeSending = []string{
	"simulationfailed", "simulationfailure", "simulationerror",
	"verificationfailed", "verifyfailed", "validationfailed", "validationerror",
	"parsefailed", "parseerror", "failedtoparse", "decodefailed", "failedtodecode",
	"signingfailed",
}

// opens are the stems of words that leave open whether money moved.
var opens = []string{
	// Somebody has used the authorization, perhaps we ourselves a moment ago.
	"nonce", "used", "already", "duplicate", "replay", "exists", "cancel", "consumed", "spent", "seen",
	// A transaction is on its way.
	"pending", "broadcast", "submit", "sent", "processing", "inprogress", "inflight", "queue", "confirm", "receipt",
	"mempool", "underpriced", "replac", "mined", "finali", "blockheight", "blockhash", "transferevent", "settled", "completed",
	"busy", "locked", "conflict", "dropped", "stuck",
	// A transaction was sent and did not end well, as far as they know.
	"revert", "onchain", "fail", "transactionstate", "channelstate",
	// They do not know, or do not say.
	"error", "internal", "unexpected", "unhandled", "unavailable", "unreachable", "exception", "panic", "crash",
	"unspecified", "undefined", "unknownreason", "timeout", "timedout", "deadlineexceeded", "abort", "interrupt",
	"connection", "econn", "socket", "gateway", "upstream", "rpc", "server", "maintenance", "ratelimit", "toomany", "throttl", "quota",
	"overload", "retry", "later", "tryagain", "wait",
}

// opensInProse are those stems that count in the message as well.
var opensInProse = []string{
	"nonce", "alreadyused", "alreadyknown", "alreadysettled", "alreadyprocessed", "alreadysubmitted", "isused", "duplicate",
	"pending", "broadcast", "submitted", "mempool", "underpriced", "timeout", "timedout",
}

// vague are whole reasons that say nothing.
var vague = []string{"unknown", "other", "none", "null", "na", "settlement", "settle", "false", "no"}

// squeeze lowers a reason and leaves its letters and digits only, so that
// timed_out, timedOut and "Timed out" are one word. It is not ok if there is
// nothing to read: no letters, letters of another script, or a vague word.
func squeeze(s string) (string, bool) {
	if len(s) > 500 {
		return "", false
	}
	var b strings.Builder
	letters := false
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z':
			letters = true
			b.WriteRune(r)
		case r >= '0' && r <= '9':
			b.WriteRune(r)
		case r > '~':
			return "", false
		}
	}
	squeezed := b.String()
	if slices.Contains(vague, squeezed) {
		return "", false
	}
	return squeezed, letters
}

func containsAny(s string, stems []string) bool {
	for _, stem := range stems {
		if strings.Contains(s, stem) {
			return true
		}
	}
	return false
}
