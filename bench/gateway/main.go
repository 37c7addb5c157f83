// Command gateway is Caddy with the paywall and a facilitator that says yes to
// everything. It is for measuring: what it sells is not paid for.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-paywall/caddy-paywall"
)

func main() { caddycmd.Main() }
