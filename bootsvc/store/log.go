package store

import (
	"context"
	"log/slog"
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapTo sends what etcd logs to a slog.Logger. Only warnings and errors pass:
// etcd's information is about itself, not about the boot service.
func zapTo(log *slog.Logger) *zap.Logger {
	return zap.New(slogCore{log.With("unit", "etcd")})
}

// pointless are warnings about listeners and tokens, which a member that
// listens nowhere does not have, and about the version of a database that has
// no entry yet, which etcd looks at again once it has.
var pointless = []string{
	"Running http and grpc server on single port. This is not recommended for production.",
	"simple token is not cryptographically signed",
	"Failed to detect schema version",
	"failed to update storage version",
}

type slogCore struct{ log *slog.Logger }

func (slogCore) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

func (c slogCore) With(fields []zapcore.Field) zapcore.Core {
	return slogCore{c.log.With(attributes(fields)...)}
}

func (c slogCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(entry.Level) || slices.Contains(pointless, entry.Message) {
		return checked
	}
	return checked.AddCore(entry, c)
}

func (c slogCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	if entry.Level >= zapcore.ErrorLevel {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, entry.Message, attributes(fields)...)
	return nil
}

func (slogCore) Sync() error { return nil }

// attributes turns zap's fields into slog's arguments.
func attributes(fields []zapcore.Field) []any {
	encoder := zapcore.NewMapObjectEncoder()
	for _, field := range fields {
		field.AddTo(encoder)
	}
	var args []any
	for name, value := range encoder.Fields {
		args = append(args, slog.Any(name, value))
	}
	return args
}
