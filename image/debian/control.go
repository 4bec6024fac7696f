package debian

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"strings"
)

// maxLine bounds one line of a control file; the longest in Debian's indexes
// are dependency lists of a few ten thousand bytes.
const maxLine = 1 << 20

// Paragraph is one block of fields of a control file. Names are lower case,
// because deb822(5) compares them without case; lines of a folded value are
// joined by newlines.
type Paragraph map[string]string

// Paragraphs reads the blocks of a control file (deb822: Packages, Release, apt
// *.sources). It stops after the first error, which names the line.
func Paragraphs(r io.Reader) iter.Seq2[Paragraph, error] {
	return func(yield func(Paragraph, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxLine)
		p, last := Paragraph{}, ""
		for n := 1; lines.Scan(); n++ {
			line := strings.TrimRight(lines.Text(), " \t\r")
			if line == "" {
				if len(p) > 0 && !yield(p, nil) {
					return
				}
				p, last = Paragraph{}, ""
				continue
			}
			var err error
			if last, err = p.add(line, last); err != nil {
				yield(nil, fmt.Errorf("line %d: %w", n, err))
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(nil, err)
			return
		}
		if len(p) > 0 {
			yield(p, nil)
		}
	}
}

// add puts one non-empty line into p and returns the name of the field it
// belongs to.
func (p Paragraph) add(line, last string) (string, error) {
	if line[0] == '#' {
		return last, nil
	}
	if line[0] == ' ' || line[0] == '\t' {
		if last == "" {
			return "", fmt.Errorf("%q continues no field", line)
		}
		p[last] += "\n" + strings.TrimSpace(line)
		return last, nil
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" {
		return "", fmt.Errorf("%q is not \"Name: value\"", line)
	}
	name = strings.ToLower(name)
	if _, twice := p[name]; twice {
		return "", fmt.Errorf("field %q appears twice", name)
	}
	p[name] = strings.TrimSpace(value)
	return name, nil
}
