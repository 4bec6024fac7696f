package disklayout

import (
	_ "embed" // grub.cfg
	"fmt"
	"strings"
)

// GRUBConfigText is the content of GRUBConfig: the choice of a slot, with one
// try for a new one. It is the same on every disk.
//
//go:embed grub.cfg
var GRUBConfigText string

// grubSignature begins every environment block of GRUB ("Environment block" in its manual).
const grubSignature = "# GRUB Environment Block\n"

// Setting is one line of an environment block.
type Setting struct{ Name, Value string }

// EnvironmentBlock encodes settings as GRUB's load_env reads them: 1024 bytes,
// or more in steps of 512 if they need it.
func EnvironmentBlock(settings ...Setting) []byte {
	escape := strings.NewReplacer(`\`, `\\`, "\n", "\\\n")
	text := grubSignature
	for _, s := range settings {
		text += s.Name + "=" + escape.Replace(s.Value) + "\n"
	}
	size := max(1024, (len(text)+511)/512*512)
	return []byte(text + strings.Repeat("#", size-len(text)))
}

// ReadEnvironmentBlock is the reverse of EnvironmentBlock.
func ReadEnvironmentBlock(block []byte) (map[string]string, error) {
	text, ok := strings.CutPrefix(string(block), grubSignature)
	if !ok {
		return nil, fmt.Errorf("it does not begin with %q", grubSignature)
	}
	settings := map[string]string{}
	for text != "" && text[0] != '#' {
		line, rest := cutLine(text)
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("line %q has no value", line)
		}
		settings[name], text = value, rest
	}
	return settings, nil
}

// cutLine returns a line without its escapes, and what follows it.
func cutLine(text string) (line, rest string) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\n':
			return b.String(), text[i+1:]
		case text[i] == '\\' && i+1 < len(text):
			i++
		}
		b.WriteByte(text[i])
	}
	return b.String(), ""
}

// GRUBArguments is the content of a slot's Arguments: a kernel command line as
// an environment block, which GRUB takes as a value and never as a script.
func GRUBArguments(cmdline string) []byte {
	return EnvironmentBlock(Setting{"arguments", strings.TrimSpace(cmdline)})
}
