package paywall

import (
	"encoding/json"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// parseGlobalOption parses the global option. Syntax:
//
//	paywall {
//		ledger sqlite [<file>]
//		ledger postgres <dsn>
//		ledger memory i_accept_loss
//		facilitator <name> <https-url> {
//			auth bearer <token>
//			auth header <name> <value>
//			auth cdp <id> <secret>
//			timeout <duration>
//		}
//		facilitator <name> <module> [<args...>]
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
	for d.NextBlock(0) {
		var err error
		switch word := d.Val(); word {
		case "ledger":
			err = parseLedger(d, app)
		case "facilitator":
			err = parseFacilitator(d, app)
		default:
			err = unknownWord(d, "the global paywall block", "ledger", "facilitator")
		}
		if err != nil {
			return nil, err
		}
	}
	return httpcaddyfile.App{Name: "paywall", Value: caddyconfig.JSON(app, nil)}, nil
}

func parseLedger(d *caddyfile.Dispenser, app *App) error {
	if app.LedgerRaw != nil {
		return d.Err("ledger given twice; all sites share one")
	}
	if !d.NextArg() {
		return d.Err("ledger: which one? there are sqlite, postgres <dsn> and memory i_accept_loss")
	}
	name := d.Val()
	module, err := unmarshalGuest(d, "paywall.ledgers.", name)
	if err != nil {
		return err
	}
	app.LedgerRaw = caddyconfig.JSONModuleObject(module, "type", name, nil)
	return nil
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
