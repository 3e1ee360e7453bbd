package conf

import (
	"os"
	"sync"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// environment is the process's environment as a Load found it, so that a configuration stays
// the same from Load to Open. It keeps the variables that were asked for, and no others.
type environment struct {
	mu    sync.Mutex
	found map[string]string // "": not set
}

func (e *environment) lookUp(name string) (string, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	value, known := e.found[name]
	if !known { // of a type that the program chose after Load
		value = os.Getenv(name)
		e.found[name] = value
	}
	return value, value != ""
}

// lay lays the environment over the configuration c. from is what the sources before it
// gave, and learns what the environment gives.
func (e *environment) lay(c driver.Config, from places) error {
	env := driver.Env{Lookup: e.lookUp}
	c.LoadEnv(&env)
	for field, variable := range env.Variables() {
		from[field] = place{source: variable}
	}
	return from.locate(env.Err())
}
