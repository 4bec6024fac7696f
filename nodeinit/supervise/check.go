package supervise

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Check reports what is wrong with a list of units: a name that is empty or
// there twice, an After that is not in the list, a circle of Afters. A nil
// error means that every unit can start.
func Check(units []Unit) error {
	var errs []error
	byName := make(map[string]Unit)
	for _, u := range units {
		if _, twice := byName[u.Name]; twice || u.Name == "" {
			errs = append(errs, fmt.Errorf("unit %q: the name is empty or there twice", u.Name))
		}
		if u.Service == nil {
			errs = append(errs, fmt.Errorf("unit %q: no service", u.Name))
		}
		byName[u.Name] = u
	}
	for _, u := range units {
		for _, name := range u.After {
			if _, known := byName[name]; !known {
				errs = append(errs, fmt.Errorf("unit %q: after %q, which is not a unit", u.Name, name))
			}
		}
	}
	if circle := findCircle(units, byName); circle != nil {
		errs = append(errs, fmt.Errorf("units wait for each other: %s", strings.Join(circle, " after ")))
	}
	return errors.Join(errs...)
}

// findCircle returns the names along one circle of Afters, or nil.
func findCircle(units []Unit, byName map[string]Unit) []string {
	sound := make(map[string]bool)
	var path []string
	var visit func(name string) []string
	visit = func(name string) []string {
		if i := slices.Index(path, name); i >= 0 {
			return append(slices.Clone(path[i:]), name)
		}
		if sound[name] {
			return nil
		}
		path = append(path, name)
		for _, next := range byName[name].After {
			if circle := visit(next); circle != nil {
				return circle
			}
		}
		path = path[:len(path)-1]
		sound[name] = true
		return nil
	}
	for _, u := range units {
		if circle := visit(u.Name); circle != nil {
			return circle
		}
	}
	return nil
}

// same reports whether v is the unit u, whatever it comes After. A service
// that has no Equal method is the same only as itself.
func (u Unit) same(v Unit) bool {
	if u.Name != v.Name || u.Restart != v.Restart {
		return false
	}
	if e, ok := u.Service.(interface{ Equal(Service) bool }); ok {
		return e.Equal(v.Service)
	}
	return reflect.ValueOf(u.Service).Comparable() && u.Service == v.Service // functions are not
}
