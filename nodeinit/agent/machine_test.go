package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"
)

func TestCardAddresses(t *testing.T) {
	root := fstest.MapFS{}
	for name, card := range map[string]string{
		"eth0": "52:54:00:00:00:09 1 device", "eth1": "52:54:00:00:00:02 1 device", "lo": "00:00:00:00:00:00 772 ",
		"br0": "02:00:00:00:00:01 1 ", "ib0": "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:00:00:01 32 device", "off": "00:00:00:00:00:00 1 device",
	} {
		fields := strings.Split(card, " ")
		root["sys/class/net/"+name+"/address"] = &fstest.MapFile{Data: []byte(fields[0] + "\n")}
		root["sys/class/net/"+name+"/type"] = &fstest.MapFile{Data: []byte(fields[1] + "\n")}
		if fields[2] != "" {
			root["sys/class/net/"+name+"/device/vendor"] = &fstest.MapFile{}
		}
	}
	if got, want := cardAddresses(root), []string{"52:54:00:00:00:02", "52:54:00:00:00:09"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAnonymous(t *testing.T) {
	for cmdline, want := range map[string]bool{
		"quiet slipway.server=https://10.0.0.1:8443\n":                                 true,
		"slipway.server=https://10.0.0.1:8443 slipway.machine=52-54-00-00-00-09 quiet": false,
		"quiet slipway.root=0123":                                                      false,
	} {
		if anonymous(cmdline) != want {
			t.Errorf("%q: %t", cmdline, !want)
		}
	}
}

func TestKeptMachine(t *testing.T) {
	s := store{dir: t.TempDir()}
	if id := keptMachine(s); id != "" {
		t.Errorf("of nothing it is %q", id)
	}
	if err := s.save(argsFile, []byte("slipway.server=https://10.0.0.1:8443 slipway.machine=52-54-00-00-00-09\n")); err != nil {
		t.Fatal(err)
	}
	if id := keptMachine(s); id != "52-54-00-00-00-09" {
		t.Errorf("it is %q", id)
	}
}

// TestOwnMachine: the card whose driver comes later may be the one.
func TestOwnMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, told := time.Now(), 0
		cards := func() []string {
			switch at := time.Since(start); {
			case at < 2*time.Second:
				return nil
			case at < 4*time.Second:
				return []string{"52:54:00:00:00:09"}
			}
			return []string{"52:54:00:00:00:02", "52:54:00:00:00:09"}
		}
		id, err := ownMachine(t.Context(), cards, func() { told++ })
		if err != nil || id != "52-54-00-00-00-02" || time.Since(start) != 4*time.Second+cardSettle || told == 0 {
			t.Errorf("after %s it is %q, %v; told %d times that it waits", time.Since(start), id, err, told)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := ownMachine(ctx, func() []string { return nil }, func() {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a card: %v", err)
		}
	})
}
