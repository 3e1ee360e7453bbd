package scaffold

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// cloned are the published modules that a new backend needs.
var cloned = []string{"conformance", "locker"}

// CheckClone says what dir lacks of a clone of Lockstep.
func CheckClone(dir string) error {
	for _, module := range cloned {
		name := filepath.Join(dir, module, "go.mod")
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if !regexp.MustCompile(`(?m)^module ` + regexp.QuoteMeta(Lockstep+"/"+module) + `\s*$`).Match(data) {
			return fmt.Errorf("%s is not that of %s/%s", name, Lockstep, module)
		}
	}
	return nil
}

// FindClone is the clone of Lockstep that dir is in, or "".
func FindClone(dir string) string {
	for {
		if CheckClone(dir) == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

// FromModule is how the go.mod of a module in the folder out names the clone: relative where
// the clone holds the module, because the two then move together. Both are absolute.
func FromModule(clone, out string) string {
	inside, err := filepath.Rel(clone, out)
	if err != nil || !filepath.IsLocal(inside) || inside == "." {
		return filepath.ToSlash(clone)
	}
	up, err := filepath.Rel(out, clone)
	if err != nil {
		return filepath.ToSlash(clone)
	}
	return filepath.ToSlash(up)
}
