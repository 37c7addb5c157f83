package paywall

import (
	"encoding/json"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/caddy-paywall/caddy-paywall/internal/succession"
)

// parseGlobalOption parses the global option. Syntax:
//
//	paywall {
//		ledger sqlite [<file>]
//		ledger postgres <dsn>
//		ledger memory i_accept_loss
//		former_ledger <module> [<args...>]
//		facilitator <name> <https-url> {
//			auth bearer <token>
//			auth header <name> <value>
//			auth cdp <id> <secret>
//			timeout <duration>
//		}
//		facilitator <name> <module> [<args...>]
//		accept <network> <asset> <pay_to> { ... }
//		crawlers {
//			…
//		}
//	}
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next() // consume option name
	if existing != nil {
		return nil, d.Err("a second global paywall block; put all of it into one")
	}
	if d.NextArg() {
		return nil, d.ArgErr()
	}
	app := &App{FacilitatorsRaw: map[string]json.RawMessage{}}
	places := make(map[string]bool) // of ledgers
	for d.NextBlock(0) {
		var err error
		switch word := d.Val(); word {
		case "ledger":
			if app.LedgerRaw != nil {
				return nil, d.Err("ledger given twice; all sites share one")
			}
			app.LedgerRaw, err = parseLedger(d, places)
		case "former_ledger":
			var raw json.RawMessage
			raw, err = parseLedger(d, places)
			app.FormerLedgersRaw = append(app.FormerLedgersRaw, raw)
		case "facilitator":
			err = parseFacilitator(d, app)
		case "accept":
			err = parseAccept(d, &app.Accept)
		case "crawlers":
			err = parseCrawlers(d, app)
		default:
			err = unknownWord(d, "the global paywall block", "ledger", "former_ledger", "facilitator", "accept", "crawlers")
		}
		if err != nil {
			return nil, err
		}
	}
	if app.LedgerRaw == nil && len(app.FormerLedgersRaw) > 0 {
		return nil, d.Err("former_ledger without a ledger; say in which one is sold now")
	}
	return httpcaddyfile.App{Name: "paywall", Value: caddyconfig.JSON(app, nil)}, nil
}

// parseLedger parses the ledger, or one in which was sold before. Each is another one than
// those whose places are given.
func parseLedger(d *caddyfile.Dispenser, places map[string]bool) (json.RawMessage, error) {
	word := d.Val()
	if !d.NextArg() {
		return nil, d.Errf("%s: which one? there are sqlite, postgres <dsn> and memory i_accept_loss", word)
	}
	name := d.Val()
	module, err := unmarshalGuest(d, "paywall.ledgers.", name)
	if err != nil {
		return nil, err
	}
	raw := caddyconfig.JSONModuleObject(module, "type", name, nil)
	place := succession.Place(raw, module)
	if places[place] {
		return nil, d.Errf("%s: this ledger is named already; a former ledger is another one than the ledger, in which was sold before", word)
	}
	places[place] = true
	return raw, nil
}

func parseFacilitator(d *caddyfile.Dispenser, app *App) error {
	var name string
	if !d.Args(&name) || !d.NextArg() {
		return d.Err("facilitator: want `facilitator <name> <https-url>` or `facilitator <name> <module> [<args>]`")
	}
	if strings.ContainsAny(name, "/:{}") {
		return d.Errf("facilitator: %q cannot be a name; the name comes first, then the URL", name)
	}
	if _, ok := app.FacilitatorsRaw[name]; ok {
		return d.Errf("facilitator %s is defined twice", name)
	}
	module := d.Val()
	if strings.Contains(module, "://") {
		module = "remote"
		d.Prev() // its parser reads the URL as its argument
	}
	guest, err := unmarshalGuest(d, "paywall.facilitators.", module)
	if err != nil {
		return err
	}
	app.FacilitatorsRaw[name] = caddyconfig.JSONModuleObject(guest, "type", module, nil)
	return nil
}

// unmarshalGuest parses the rest of the segment with the guest module's own
// parser; the token before the rest stands for the module's name.
func unmarshalGuest(d *caddyfile.Dispenser, namespace, name string) (any, error) {
	if _, err := caddy.GetModule(namespace + name); err != nil {
		var names []string
		for _, m := range caddy.GetModules(strings.TrimSuffix(namespace, ".")) {
			names = append(names, m.ID.Name())
		}
		return nil, d.Errf("there is no module %s%s in this build; there are: %s", namespace, name, strings.Join(names, ", "))
	}
	return caddyfile.UnmarshalModule(d, namespace+name)
}
