package commands

import (
	"errors"

	"github.com/caddy-paywall/caddy-paywall/client"
)

// Exit codes, which scripts act upon: they never change their meaning.
const (
	exitOK        = 0 // delivered, or free
	exitFailure   = 1 // something on this machine
	exitUsage     = 2 // flags, key
	exitUnpriced  = 3 // an error answer to a request that had no price
	exitTooDear   = 4 // nobody agreed to the price
	exitRefused   = 5 // the payment was refused: nothing has moved
	exitPending   = 6 // nobody knows whether the money has moved
	exitNoGoods   = 7 // the payment was answered, but not with goods
	exitNetwork   = 8 // no answer, and nothing paid
	exitUnpayable = 9 // a challenge that this client cannot pay
)

// exitCodes is the table above for people.
const exitCodes = `EXIT CODES

  0  delivered, or free; with --dry-run: it would be paid
  1  something failed on this machine, such as writing the output
  2  wrong usage, or no key
  3  the request has no price, and the answer is an error (400 or above)
  4  not paid: above --max or at another origin, and nobody agreed
  5  the seller refused the payment (402); nothing was paid
  6  the outcome is not known yet: do not simply pay again
  7  no goods: the last line on stderr says whether it was paid. If so, call
     again within 24 h with the same key: a seller with caddy-paywall does not
     charge twice for what was not delivered
  8  the server could not be reached, or did not answer in time; nothing was paid
  9  the challenge cannot be paid: it is broken, or none of its offers is
     EIP-3009 on an EVM chain, or none is on the chosen networks and assets`

// errDeclined: somebody was asked, and said no.
var errDeclined = errors.New("not paid, as you wish")

// errDryRun ends a dry run at the point where it would sign.
var errDryRun = errors.New("dry run")

// errOutput: the output cannot be written.
var errOutput = errors.New("writing the output")

// exitCode is the exit code for what became of a request.
func exitCode(r *client.Result, err error) int {
	if r == nil {
		return exitNetwork
	}
	switch r.Outcome {
	case client.Delivered:
		return exitOK
	case client.Refused:
		return exitRefused
	case client.Failed:
		return exitNoGoods
	case client.Pending:
		return exitPending
	case client.Unpriced:
		if r.Response.StatusCode >= 400 {
			return exitUnpriced
		}
		return exitOK
	default:
		return exitUnpaid(err)
	}
}

// exitUnpaid is the exit code where nothing was signed, or nothing has left.
func exitUnpaid(err error) int {
	_, doubts := errors.AsType[*client.DoubtError](err)
	_, unpayable := errors.AsType[*client.ChallengeError](err)
	switch {
	case errors.Is(err, errDryRun):
		return exitOK
	case errors.Is(err, errDeclined), doubts:
		return exitTooDear
	case errors.Is(err, client.ErrNoKey):
		return exitUsage
	case errors.Is(err, errOutput):
		return exitFailure
	case unpayable:
		return exitUnpayable
	default:
		return exitNetwork
	}
}
