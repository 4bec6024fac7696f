package proc

import (
	"bufio"
	"bytes"
	"io"
)

// maxLine bounds one line of output; what is longer becomes several lines.
const maxLine = 16 << 10

// copyLines hands each line of r to Log, with its newline, and remembers the
// last one that is not blank. It returns at the end of r, or at its deadline.
func (p *Process) copyLines(r io.Reader) {
	lines := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if text := bytes.TrimSpace(line); len(text) > 0 {
			p.setLast(string(text))
		}
		if len(line) > 0 && p.Log != nil {
			if line[len(line)-1] != '\n' {
				line = append(bytes.Clone(line), '\n')
			}
			p.Log.Write(line)
		}
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}
