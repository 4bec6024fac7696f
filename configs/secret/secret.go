// Package secret holds values that must not reach a log, a terminal or an
// error text by accident.
package secret

import "log/slog"

// String is a secret text. Every way of printing it, fmt and slog and JSON
// alike, shows ***; only Reveal and YAML encoding give the text itself.
type String struct{ text string }

// New wraps text.
func New(text string) String { return String{text} }

// Reveal returns the secret itself.
func (s String) Reveal() string { return s.text }

// IsZero reports whether there is no secret.
func (s String) IsZero() bool { return s.text == "" }

// Mask is what stands in the secret's place where it may be seen.
func (s String) Mask() String { return String{mask} }

// Masked says that this is the mask, and not the secret.
func (s String) Masked() bool { return s.text == mask }

func (s String) String() string   { return mask }
func (s String) GoString() string { return mask }

// LogValue keeps the secret out of logs.
func (s String) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalJSON writes the mask: JSON is for people and logs here.
func (s String) MarshalJSON() ([]byte, error) { return []byte(`"` + mask + `"`), nil }

// MarshalYAML gives the text: machine configs carry their secrets as YAML.
func (s String) MarshalYAML() (any, error) { return s.text, nil }

// UnmarshalYAML reads a plain text.
func (s *String) UnmarshalYAML(decode func(any) error) error { return decode(&s.text) }

const mask = "***"
