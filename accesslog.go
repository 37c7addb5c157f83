package paywall

import (
	"reflect"

	"github.com/caddyserver/caddy/v2/modules/logging"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-paywall/caddy-paywall/routes"
)

// logsInTheClear finds out whether the entries of a logger are written with
// payment headers as they are. Caddy does not show the config of its logs, so
// each log is given a request to encode: its encoder comes along with it. That
// writes nothing, because no entry is written.
func logsInTheClear(logger *zap.Logger) func(name string, debug bool) bool {
	cores := []zapcore.Core{logger.Core()}
	if tee := reflect.ValueOf(logger.Core()); tee.Kind() == reflect.Slice { // zapcore.NewTee of several
		cores = nil
		for i := range tee.Len() {
			if core, ok := reflect.TypeAssert[zapcore.Core](tee.Index(i)); ok {
				cores = append(cores, core)
			}
		}
	}
	return func(name string, debug bool) bool {
		entry := zapcore.Entry{LoggerName: name, Level: zapcore.ErrorLevel}
		if debug {
			entry.Level = zapcore.DebugLevel
		}
		for _, core := range cores {
			if core.Check(entry, nil) == nil {
				continue // goes elsewhere
			}
			p := &headerProbe{}
			core.With([]zapcore.Field{zap.Object("request", p)})
			if p.shown {
				return true
			}
		}
		return false
	}
}

// headerProbe is a request to be logged; it notices whether it would be written
// with its payment headers.
type headerProbe struct{ shown bool }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (p *headerProbe) MarshalLogObject(encoder zapcore.ObjectEncoder) error {
	if f, ok := encoder.(logging.FilterEncoder); ok {
		p.shown = !routes.HidesPayments(func(field string) bool { _, ok := f.Fields[field]; return ok })
		return nil
	}
	p.shown = true
	return nil
}
