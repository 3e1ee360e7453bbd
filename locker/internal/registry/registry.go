// Package registry holds the backends that programs have imported. It knows no more of them
// than what package driver registers, so that both package driver and the loader can use it.
package registry

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// Backend is one registration. A wrong one stays here, so that Open can say what is wrong.
type Backend struct {
	Name   string
	Config reflect.Type // a struct, unless Wrong says otherwise
	// Open takes a Config and returns a driver.Backend, or nil.
	Open  func(ctx context.Context, config any) (any, error)
	Wrong string
}

var all struct {
	mu             sync.RWMutex
	types, schemes map[string]*Backend
}

// Add makes b known under types and schemes.
func Add(b *Backend, types, schemes []string) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, t := range types {
		add(&all.types, t, b)
	}
	for _, s := range schemes {
		add(&all.schemes, strings.ToLower(s), b)
	}
}

func add(to *map[string]*Backend, name string, b *Backend) {
	if name == "" {
		return // it is what Config.Type is when it is left out
	}
	if *to == nil {
		*to = make(map[string]*Backend)
	}
	if other := (*to)[name]; other != nil && other != b {
		b = &Backend{Name: name, Wrong: "was registered by two packages"}
	}
	(*to)[name] = b
}

// Type is the backend of a Config.Type, or nil.
func Type(name string) *Backend {
	all.mu.RLock()
	defer all.mu.RUnlock()
	return all.types[name]
}

// Scheme is the backend of a URL scheme in small letters, or nil.
func Scheme(name string) *Backend {
	all.mu.RLock()
	defer all.mu.RUnlock()
	return all.schemes[name]
}

// Backends are all of them, each once, by name.
func Backends() []*Backend {
	all.mu.RLock()
	defer all.mu.RUnlock()
	var found []*Backend
	for _, b := range all.types {
		if !slices.ContainsFunc(found, func(other *Backend) bool { return other.Name == b.Name }) {
			found = append(found, b)
		}
	}
	slices.SortFunc(found, func(a, b *Backend) int { return strings.Compare(a.Name, b.Name) })
	return found
}
