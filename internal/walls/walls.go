// Package walls keeps what the architecture forbids: which module may require what,
// replace what, and import what. Its test reads every go.mod and every import of the
// repository.
//
// A requirement in a published go.mod reaches every user's build, even one that only a
// test needs, and raises versions there without a word. A replace line or a workspace
// hides such a mistake from whoever makes it. Hence the walls.
package walls

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// prefix is the path of the root module, and begins those of all others.
const prefix = "github.com/lockstep-go/lockstep"

// A wall is what one module may do.
type wall struct {
	// goLine is the lowest Go version that the module's own code needs: users with an
	// older one cannot take the module.
	goLine string
	// requires are the direct requirements, exactly. Siblings are named by their folder.
	requires []string
	// indirect are the requirements that go mod tidy adds for these, exactly.
	indirect []string
	// replaces says whether siblings are replaced by their folders, so that the module
	// builds with GOWORK=off before they are published.
	replaces bool
}

// walls is the one place to change when a module is to be allowed more. The root module
// has none: it is the workshop, and nobody imports it.
var walls = map[string]wall{
	"locker":          {goLine: "1.23"},
	"backends/memory": {goLine: "1.23", requires: []string{"locker"}, replaces: true},
	"backends/redis": {goLine: "1.25.0", requires: []string{"locker", "github.com/redis/rueidis"}, replaces: true,
		indirect: []string{"golang.org/x/sys"}}, // rueidis's own
	"backends/postgres": {goLine: "1.25.0", requires: []string{"locker", "github.com/jackc/pgx/v5"}, replaces: true,
		indirect: []string{"github.com/jackc/pgpassfile", "github.com/jackc/pgservicefile", "github.com/jackc/puddle/v2",
			"golang.org/x/sync", "golang.org/x/text"}}, // pgx's own
	"adapters/certmagic": {goLine: "1.26.0", requires: []string{"locker", "github.com/caddyserver/certmagic"}, replaces: true,
		indirect: []string{"github.com/caddyserver/zerossl", "github.com/klauspost/cpuid/v2", "github.com/libdns/libdns", "github.com/mholt/acmez/v3", "github.com/miekg/dns", "github.com/zeebo/blake3", "go.uber.org/multierr", "go.uber.org/zap", "go.uber.org/zap/exp", "golang.org/x/crypto", "golang.org/x/net", "golang.org/x/sys", "golang.org/x/text"}}, // the library's own
	"adapters/cron": {goLine: "1.23", requires: []string{"locker", "github.com/robfig/cron/v3"}, replaces: true},
	"adapters/gocron": {goLine: "1.23", requires: []string{"locker", "github.com/go-co-op/gocron/v2"}, replaces: true,
		indirect: []string{"github.com/google/uuid", "github.com/jonboulle/clockwork", "github.com/robfig/cron/v3"}}, // the library's own
	// goose's interface is of types of the standard library.
	"adapters/goose": {goLine: "1.23", requires: []string{"locker"}, replaces: true},
	"adapters/otel": {goLine: "1.26.0", requires: []string{"locker", "go.opentelemetry.io/otel", "go.opentelemetry.io/otel/metric", "go.opentelemetry.io/otel/trace"}, replaces: true,
		indirect: []string{"github.com/cespare/xxhash/v2", "github.com/go-logr/logr", "github.com/go-logr/stdr", "go.opentelemetry.io/auto/sdk", "go.opentelemetry.io/otel/log"}}, // the library's own
	"cmd/lockstep": {goLine: "1.25.0", replaces: true,
		requires: []string{"locker", "backends/memory", "backends/postgres", "backends/redis", "conformance",
			"github.com/jackc/pgx/v5", "github.com/redis/rueidis", "github.com/spf13/cobra", "golang.org/x/sys"},
		indirect: []string{"github.com/jackc/pgpassfile", "github.com/jackc/pgservicefile", "github.com/jackc/puddle/v2", "golang.org/x/sync", "golang.org/x/text", // the backends'
			"github.com/anishathalye/porcupine", // the suite's
			"github.com/cpuguy83/go-md2man/v2", "github.com/inconshreveable/mousetrap", "github.com/russross/blackfriday/v2",
			"github.com/spf13/pflag", "go.yaml.in/yaml/v3"}}, // cobra's
	"conformance": {goLine: "1.25.0", requires: []string{"locker", "github.com/anishathalye/porcupine"}, replaces: true},
	// No replace lines: go run …/gen/cmd/lockgen@version is refused for a module that has one.
	"gen": {goLine: "1.25.0", requires: []string{"golang.org/x/tools"},
		indirect: []string{"golang.org/x/mod", "golang.org/x/sync"}}, // those of its go/packages
}

// workGoLine is the go line of go.work and of the root module.
const workGoLine = "1.26.0"

// heavy are modules for tests and tools that a module comes near only if it requires them,
// not even in tests.
var heavy = []string{"github.com/testcontainers/testcontainers-go", "github.com/Shopify/toxiproxy", "golang.org/x/tools"}

// A module is what the check knows of one module.
type module struct {
	dir, path, goLine  string
	requires, indirect []string
	replaces           map[string]string // path to replacement
	tools              []string
	toolchain          string
	license            bool                // a file LICENSE is in its folder, and so in what users download
	imports            map[string][]string // path to the files that import it, tests included
}

// A repository is what the check knows of all of it.
type repository struct {
	workGoLine string
	work       []string // the folders in go.work
	modules    []module
}

// check returns one sentence for each thing that is not as the walls say.
func check(r repository, walls map[string]wall) []string {
	var found []string
	report := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }

	var dirs []string
	for _, m := range r.modules {
		dirs = append(dirs, m.dir)
	}
	for _, dir := range differing(r.work, dirs) {
		report("go.work: %s: every module of the repository is used, and nothing else", dir)
	}
	if r.workGoLine != workGoLine {
		report("go.work: go %s, want %s", r.workGoLine, workGoLine)
	}
	for dir := range walls {
		if !slices.Contains(dirs, dir) {
			report("%s: it has walls but is no module", dir)
		}
	}

	for _, m := range r.modules {
		where := m.dir + "/go.mod"
		w, known := walls[m.dir]
		root := m.dir == "."
		if root {
			w = wall{goLine: workGoLine, replaces: true}
		} else if !known {
			report("%s: there is no wall for this module; add it to the table", where)
			continue
		}

		if want := pathOf(m.dir); m.path != want {
			report("%s: module %s, want %s", where, m.path, want)
		}
		if m.goLine != w.goLine {
			report("%s: go %s, want %s", where, m.goLine, w.goLine)
		}
		if !m.license {
			report("%s: no LICENSE beside it", where)
		}
		for path, with := range m.replaces {
			switch dir, ok := folderOf(path); {
			case !w.replaces:
				report("%s: replace %s: this module has no replace lines", where, path)
			case !ok || with != relative(m.dir, dir):
				report("%s: replace %s => %s: only siblings are replaced, by their folders", where, path, with)
			}
		}
		if root {
			continue
		}

		for _, path := range differing(m.requires, paths(w.requires)) {
			report("%s: require %s: the direct requirements are exactly %v", where, path, paths(w.requires))
		}
		for _, path := range differing(m.indirect, w.indirect) {
			report("%s: require %s // indirect: the indirect requirements are exactly %v", where, path, w.indirect)
		}
		if len(m.tools) > 0 || m.toolchain != "" {
			report("%s: tool %v, toolchain %q: they reach the module's users", where, m.tools, m.toolchain)
		}
		for path, files := range m.imports {
			if why := refuse(path, m.path, paths(w.requires)); why != "" {
				report("%s: it imports %s: %s", files[0], path, why)
			}
		}
	}
	slices.Sort(found)
	return found
}

// refuse says why a module must not import path, or "".
func refuse(path, self string, requires []string) string {
	switch {
	case path == "C":
		return "cgo does not build everywhere"
	case isStandard(path), within(path, self):
		return ""
	case slices.ContainsFunc(requires, func(r string) bool { return within(path, r) }):
		return ""
	case slices.ContainsFunc(heavy, func(h string) bool { return within(path, h) }):
		return "it is for the root module only"
	case within(path, prefix+"/internal"):
		return "the root module is never imported by a published one"
	}
	return "it is in no module that this one may require"
}

func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func within(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+"/")
}

// differing returns what is in one of the two only.
func differing(a, b []string) []string {
	in := map[string]int{}
	for _, s := range a {
		in[s] |= 1
	}
	for _, s := range b {
		in[s] |= 2
	}
	maps.DeleteFunc(in, func(_ string, both int) bool { return both == 3 })
	return slices.Sorted(maps.Keys(in))
}

// pathOf is the module path of a folder.
func pathOf(dir string) string {
	if dir == "." {
		return prefix
	}
	return prefix + "/" + dir
}

func folderOf(path string) (string, bool) { return strings.CutPrefix(path, prefix+"/") }

// paths makes module paths of what may be folders.
func paths(names []string) []string {
	var all []string
	for _, name := range names {
		if first, _, _ := strings.Cut(name, "/"); !strings.Contains(first, ".") {
			name = pathOf(name)
		}
		all = append(all, name)
	}
	return all
}

// relative is how a go.mod in the folder from names the folder to.
func relative(from, to string) string {
	if from == "." {
		return "./" + to
	}
	return strings.Repeat("../", strings.Count(from, "/")+1) + to
}
