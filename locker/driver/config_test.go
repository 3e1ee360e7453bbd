package driver_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

func ExampleEnv() {
	variables := map[string]string{"LOCKSTEP_DIR_PATH": "/run/locks", "LOCKSTEP_DIR_PEERS": "a, b", "LOCKSTEP_DIR_WAIT": "soon"}
	env := driver.Env{Lookup: func(name string) (string, bool) { v, ok := variables[name]; return v, ok }}

	var c struct {
		Path  string
		Peers []string
		Wait  time.Duration
	}
	env.Set("LOCKSTEP_DIR_PATH", "path", &c.Path)
	env.Set("LOCKSTEP_DIR_PEERS", "peers", &c.Peers)
	env.Set("LOCKSTEP_DIR_WAIT", "wait", &c.Wait)
	fmt.Printf("%q %q\n", c.Path, c.Peers)
	fmt.Println(env.Err())
	// Output:
	// "/run/locks" ["a" "b"]
	// invalid configuration: wait: want a duration with a unit, such as "1.5s" or "250ms", got "soon"
}

func ExampleInvalid() {
	fmt.Println(driver.Invalid("wait", "%v is not between %v and %v", 5*time.Hour, time.Second, time.Hour))
	fmt.Println(driver.Within("tls.", driver.Invalid("caFile", "%v holds no certificate", "ca.pem")))
	// Output:
	// invalid configuration: wait: 5h is not between 1s and 1h
	// invalid configuration: tls.caFile: "ca.pem" holds no certificate
}

func TestEnv(t *testing.T) {
	const secret = "hunter2"
	variables := map[string]string{"EMPTY": "", "PIN": "u@" + secret, "INT": "7", "BIG": "300", "FLAG": "true", "RATE": "0.5", "LIST": "1s,2s", "BAD": "1s,x"}
	newEnv := func() *driver.Env {
		return &driver.Env{Lookup: func(name string) (string, bool) { v, ok := variables[name]; return v, ok }}
	}
	env := newEnv()
	kept, flag, n, rate, list := "kept", (*bool)(nil), 0, 0.0, []time.Duration(nil)
	env.Set("EMPTY", "empty", &kept)
	env.Set("ABSENT", "absent", &kept)
	env.Set("FLAG", "flag", &flag)
	env.Set("INT", "int", &n)
	env.Set("RATE", "rate", &rate)
	env.Set("LIST", "list", &list)
	if env.Err() != nil || kept != "kept" || flag == nil || !*flag || n != 7 || rate != 0.5 || len(list) != 2 || list[1] != 2*time.Second {
		t.Errorf("%v: %v %v %v %v %v", env.Err(), kept, flag, n, rate, list)
	}
	if v := env.Variables(); len(v) != 4 || v["list"] != "LIST" {
		t.Errorf("variables %v", v)
	}

	for name, field := range map[string]string{"PIN": "f", "BIG": "f", "BAD": "f[1]"} {
		env := newEnv()
		var small int8
		if name == "BAD" {
			env.Set(name, "f", &list)
		} else {
			env.Set(name, "f", &small)
		}
		var wrong *driver.FieldError
		if err := env.Err(); !errors.As(err, &wrong) || !errors.Is(err, driver.ErrInvalidConfig) || wrong.Field != field || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
		if env.Set("INT", "int", &n); env.Variables()["int"] != "" {
			t.Error("it goes on after an error")
		}
	}
}

func TestWithin(t *testing.T) {
	inner := driver.Invalid("a", "is wrong").With("b")
	var wrong *driver.FieldError
	if err := driver.Within("in.", inner); !errors.As(err, &wrong) || wrong.Field != "in.a" || wrong.Others[0] != "in.b" || inner.Field != "a" {
		t.Errorf("%v", err)
	}
	other := errors.New("other")
	if driver.Within("in.", other) != other || driver.Within("", inner) != error(inner) || driver.Within("in.", nil) != nil {
		t.Error("it changes what it should leave alone")
	}
}
