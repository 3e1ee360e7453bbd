package packaging

import (
	"fmt"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"
)

// Pin makes f require its siblings, those of all that it requires, at version. That is
// the whole difference between a go.mod of every day and a released one: users
// cannot resolve a sibling at a version that was never tagged, and the replace lines,
// which hide that here, mean nothing in a dependency. They may stay, but for those of a command:
// go install refuses a module that has any.
func Pin(f *modfile.File, all []Module, version string) error {
	if semver.Canonical(version) != version {
		return fmt.Errorf("%q is no version such as v1.2.3", version)
	}
	for _, r := range Siblings(f, all) {
		if err := f.AddRequire(r.Mod.Path, version); err != nil {
			return err
		}
		if isCommand(f.Module.Mod.Path) {
			if err := f.DropReplace(r.Mod.Path, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// isCommand says whether users install the module rather than require it.
func isCommand(path string) bool { return strings.Contains(path, "/cmd/") }
