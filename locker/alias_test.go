package locker_test

import (
	"os"
	"strings"
	"testing"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// A new capability is easily added to package driver alone.
func TestEveryCapabilityHasAnAlias(t *testing.T) {
	src, err := os.ReadFile("alias.go")
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(src))
	for _, c := range driver.All() {
		found := false
		for i := range words[:len(words)-2] {
			found = found || words[i] == c.String() && words[i+1] == "=" && words[i+2] == "driver."+c.String()
		}
		if !found {
			t.Errorf("alias.go has no %s = driver.%[1]s", c)
		}
	}
}
