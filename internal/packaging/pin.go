package packaging

import (
	"fmt"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"
)

// Pin makes f require its siblings, those of all that it requires, at version. That is
// the whole difference between a go.mod of every day and a released one: users
// cannot resolve a sibling at a version that was never tagged, and the replace lines,
// which hide that here, mean nothing in a dependency. They may stay.
func Pin(f *modfile.File, all []Module, version string) error {
	if semver.Canonical(version) != version {
		return fmt.Errorf("%q is no version such as v1.2.3", version)
	}
	for _, r := range Siblings(f, all) {
		if err := f.AddRequire(r.Mod.Path, version); err != nil {
			return err
		}
	}
	return nil
}
