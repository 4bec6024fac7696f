package main

import (
	"context"
	"errors"

	"slipway/test/host/powercut"
)

// powercuts is how many times the power is cut: each story on UEFI and BIOS
// machines about 20 times.
const powercuts = 320

// powercut is that of installed machines. A cut that is not survived is an
// error, not a figure with a budget.
func (b bench) powercut(context.Context) ([]figure, error) {
	got, err := powercut.Run(powercuts, 2026)
	if err != nil {
		return nil, err
	}
	return []figure{
		{name: "powercut.cuts", value: float64(got.Cuts), unit: "cuts"},
		{name: "powercut.survived", value: float64(got.Survived), unit: "cuts"},
	}, errors.Join(got.Failures...)
}
