package main

import (
	"context"

	"slipway/nodeinit/module"
)

// modprobe loads the module that the kernel asks for, by name or alias.
func modprobe(name string) error {
	loader, err := module.NewLoader("/")
	if err != nil {
		return err
	}
	return loader.Load(context.Background(), name)
}
