package walls

import (
	"slices"
	"strings"
	"testing"
)

func TestWalls(t *testing.T) {
	r, err := read("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, finding := range check(r, walls) {
		t.Error(finding)
	}

	// A reader that sees nothing would find nothing.
	seen := map[string]int{}
	for _, m := range r.modules {
		seen[m.dir] = len(m.imports)
	}
	for dir := range walls {
		if seen[dir] == 0 {
			t.Errorf("%s: no import was seen", dir)
		}
	}
	if i := slices.IndexFunc(r.modules, func(m module) bool { return m.dir == "backends/redis" }); i < 0 || len(r.modules[i].requires) == 0 {
		t.Error("backends/redis/go.mod: no requirement was seen")
	}
}

const rueidis = "github.com/redis/rueidis"

// sound is a small repository that keeps the walls in small.
func sound() (repository, map[string]wall) {
	imports := func(paths ...string) map[string][]string {
		m := map[string][]string{}
		for _, p := range paths {
			m[p] = []string{"some/file_test.go"}
		}
		return m
	}
	locker := prefix + "/locker"
	r := repository{
		workGoLine: workGoLine,
		work:       []string{".", "locker", "backends/redis", "gen"},
		modules: []module{
			{dir: ".", path: prefix, goLine: workGoLine, license: true, requires: []string{"anything.example/at/all"},
				replaces: map[string]string{locker: "./locker"}, tools: []string{"golang.org/x/tools/cmd/stringer"},
				imports: imports("anything.example/at/all")},
			{dir: "locker", path: locker, goLine: "1.23", license: true, imports: imports("context", "encoding/json", locker+"/driver")},
			{dir: "backends/redis", path: prefix + "/backends/redis", goLine: "1.25.0", license: true,
				requires: []string{locker, rueidis}, indirect: []string{"golang.org/x/sys"},
				replaces: map[string]string{locker: "../../locker"}, imports: imports("net", locker, rueidis+"/rueidislock")},
			{dir: "gen", path: prefix + "/gen", goLine: "1.25.0", license: true, requires: []string{"golang.org/x/tools"},
				indirect: []string{"golang.org/x/mod", "golang.org/x/sync"},
				imports:  imports("go/ast", "golang.org/x/tools/go/packages", prefix+"/gen/internal/config")},
		},
	}
	return r, map[string]wall{"locker": walls["locker"], "backends/redis": walls["backends/redis"], "gen": walls["gen"]}
}

func TestSoundRepositoryPasses(t *testing.T) {
	if found := check(sound()); len(found) > 0 {
		t.Error(strings.Join(found, "\n"))
	}
}

// Each breach is found, and by itself: a check that cannot fail proves nothing.
func TestBreachesAreFound(t *testing.T) {
	const root, core, redis, gen = 0, 1, 2, 3 // in modules
	imports := func(path string) func(*repository, *module) {
		return func(_ *repository, m *module) { m.imports[path] = []string{"some/file_test.go"} }
	}
	for name, test := range map[string]struct {
		module int
		breach func(r *repository, m *module)
		want   string
	}{
		"requirement in locker":       {core, func(_ *repository, m *module) { m.requires = []string{"golang.org/x/sync"} }, "locker/go.mod: require golang.org/x/sync: "},
		"indirect one in locker":      {core, func(_ *repository, m *module) { m.indirect = []string{"golang.org/x/sync"} }, "locker/go.mod: require golang.org/x/sync // indirect"},
		"testcontainers in a backend": {redis, func(_ *repository, m *module) { m.requires = append(m.requires, heavy[0]) }, "backends/redis/go.mod: require " + heavy[0]},
		"requirement that is gone":    {redis, func(_ *repository, m *module) { m.requires = m.requires[:1] }, "backends/redis/go.mod: require " + rueidis},
		"unlisted indirect one":       {redis, func(_ *repository, m *module) { m.indirect = append(m.indirect, "golang.org/x/net") }, "require golang.org/x/net // indirect"},
		"direct one turned indirect":  {redis, func(_ *repository, m *module) { m.requires, m.indirect = m.requires[:1], append(m.indirect, rueidis) }, "require " + rueidis + " // indirect"},
		"replace in gen":              {gen, func(_ *repository, m *module) { m.replaces = map[string]string{prefix + "/locker": "../locker"} }, "this module has no replace lines"},
		"replace by a fork":           {redis, func(_ *repository, m *module) { m.replaces[rueidis] = "../../../fork" }, "only siblings are replaced"},
		"replace by another folder":   {redis, func(_ *repository, m *module) { m.replaces[prefix+"/locker"] = "/tmp/locker" }, "only siblings are replaced"},
		"replace by a fork in root":   {root, func(_ *repository, m *module) { m.replaces[rueidis] = "../fork" }, "only siblings are replaced"},
		"tool line":                   {gen, func(_ *repository, m *module) { m.tools = []string{"golang.org/x/tools/cmd/stringer"} }, "they reach the module's users"},
		"toolchain line":              {core, func(_ *repository, m *module) { m.toolchain = "go1.26.8" }, "they reach the module's users"},
		"higher go line":              {core, func(_ *repository, m *module) { m.goLine = "1.26.0" }, "locker/go.mod: go 1.26.0, want 1.23"},
		"other module path":           {gen, func(_ *repository, m *module) { m.path = "example.com/gen" }, "gen/go.mod: module example.com/gen"},
		"no LICENSE":                  {gen, func(_ *repository, m *module) { m.license = false }, "gen/go.mod: no LICENSE"},
		"module outside go.work":      {root, func(r *repository, _ *module) { r.work = r.work[:3] }, "go.work: gen: "},
		"folder without a module":     {root, func(r *repository, _ *module) { r.work = append(r.work, "old") }, "go.work: old: "},
		"go line of go.work":          {root, func(r *repository, _ *module) { r.workGoLine = "1.23" }, "go.work: go 1.23"},
		"module without a wall": {root, func(r *repository, _ *module) {
			r.work = append(r.work, "backends/etcd")
			r.modules = append(r.modules, module{dir: "backends/etcd"})
		}, "backends/etcd/go.mod: there is no wall"},
		"wall without a module": {root, func(r *repository, _ *module) {
			r.work, r.modules = r.work[:3], r.modules[:3]
		}, "gen: it has walls but is no module"},
		"third party in locker":   {core, imports("golang.org/x/sync/errgroup"), "it imports golang.org/x/sync/errgroup: it is in no module"},
		"backend in locker":       {core, imports(prefix + "/backends/memory"), "it is in no module that this one may require"},
		"test of a backend":       {redis, imports(prefix + "/internal/redistest"), "the root module is never imported"},
		"the suite in a backend":  {redis, imports(prefix + "/conformance"), "it is in no module that this one may require"},
		"testcontainers imported": {redis, imports(heavy[0] + "/wait"), "it is for the root module only"},
		"toxiproxy imported":      {redis, imports(heavy[1] + "/v2"), "it is for the root module only"},
		"a longer name":           {redis, imports(rueidis + "compat"), "it is in no module that this one may require"},
		"cgo":                     {core, imports("C"), "cgo"},
	} {
		t.Run(name, func(t *testing.T) {
			r, walls := sound()
			test.breach(&r, &r.modules[test.module])
			found := check(r, walls)
			if len(found) == 0 || !slices.ContainsFunc(found, func(s string) bool { return strings.Contains(s, test.want) }) {
				t.Errorf("got %q, want one with %q", found, test.want)
			}
		})
	}
}

func TestRelative(t *testing.T) {
	for from, want := range map[string]string{".": "./locker", "gen": "../locker", "backends/redis": "../../locker"} {
		if got := relative(from, "locker"); got != want {
			t.Errorf("from %s: got %s, want %s", from, got, want)
		}
	}
	for path, want := range map[string]bool{"net/http": true, "C": true, "golang.org/x/sys": false} {
		if got := isStandard(path); got != want {
			t.Errorf("isStandard(%q): got %v, want %v", path, got, want)
		}
	}
}
