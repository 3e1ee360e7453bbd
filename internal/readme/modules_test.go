package readme

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const prefix = "github.com/lockstep-go/lockstep/"

var requirement = regexp.MustCompile(`(?m)^(?:require )?\s*([a-z0-9.-]+\.[a-z]+/\S+) v`)

// The table of modules names all that go.mod requires, and nothing else.
func TestModulesTable(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"locker", "backends/memory", "backends/postgres", "backends/redis",
		"adapters/certmagic", "adapters/cron", "adapters/gocron", "adapters/goose", "adapters/otel", "cmd/lockstep", "conformance", "gen"} {
		row := regexp.MustCompile("(?m)^\\| \\[`" + module + "`\\]\\(" + module + "\\) \\|.*\\|(.*)\\|$").FindStringSubmatch(string(data))
		if row == nil {
			t.Errorf("README.md has no row for the module %s", module)
			continue
		}
		named := map[string]bool{}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			named[m[1]] = true
		}
		mod, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path.Join(module, "go.mod"))))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range requirement.FindAllStringSubmatch(string(mod), -1) {
			required := strings.TrimPrefix(m[1], prefix)
			if !named[required] {
				t.Errorf("README.md does not say that %s brings %s", module, required)
			}
			delete(named, required)
		}
		for name := range named {
			t.Errorf("README.md says that %s brings %s, which its go.mod does not require", module, name)
		}
	}
}
