package main

import (
	"errors"
	"strings"
	"testing"

	"slipway/image"
)

func TestMediaDataSize(t *testing.T) {
	for _, c := range []struct {
		format image.Format
		size   string
		want   string // the argument, or a part of the error
		fails  bool
	}{
		{image.Raw, "", "", false},
		{image.ISO, "", "", false},
		{image.Raw, "100 GiB", "slipway.data-size=100GiB", false},
		{image.Raw, "1GiB", "1GiB has no room for a node's images and logs; want 4GiB or more", true},
		{image.Raw, "most", "not a size such as 100GiB", true},
		{image.ISO, "100GiB", "dataSize of its cluster's document", true},
	} {
		got, err := (&mediaFlags{dataSize: c.size}).data(c.format)
		switch {
		case c.fails && (!errors.Is(err, errUsage) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s %q: %v, want %q", c.format, c.size, err, c.want)
		case !c.fails && (err != nil || strings.Join(got, " ") != c.want):
			t.Errorf("%s %q: %q, %v; want %q", c.format, c.size, got, err, c.want)
		}
	}
}
