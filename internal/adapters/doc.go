// Package adapters has the tests of the modules in the folder adapters, with the real library of
// each, on memory and on a real Redis. They are here because what only a test needs must not be
// required by a module that is published.
package adapters
