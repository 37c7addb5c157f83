// Command caddy is Caddy with its standard modules and the paywall in it.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-paywall/caddy-paywall"
)

func main() { caddycmd.Main() }
