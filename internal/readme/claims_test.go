package readme

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	_ "github.com/lockstep-go/lockstep/backends/memory"
	_ "github.com/lockstep-go/lockstep/backends/postgres"
	_ "github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/pgtest"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

func document(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The counts in docs/how-it-is-tested.md are those of the catalogue, which is generated, and of
// the sources.
func TestCounts(t *testing.T) {
	page, catalogue := document(t, "docs/how-it-is-tested.md"), document(t, "docs/catalogue.md")
	for row, count := range map[string]int{
		"clauses with a case in the suite":                                                strings.Count(catalogue, "\n## "),
		"mutants: broken backends and cores, each to be caught by the case of its clause": strings.Count(catalogue, "\n- proven by "),
		"fuzz targets": fuzzTargets(t),
	} {
		if want := fmt.Sprintf("\n| %s | %d |", row, count); count == 0 || !strings.Contains(page, want) {
			t.Errorf("docs/how-it-is-tested.md should have the row %q", strings.TrimSpace(want))
		}
	}
}

func fuzzTargets(t *testing.T) (n int) {
	t.Helper()
	eachFile(t, "_test.go", func(_, text string) { n += len(regexp.MustCompile(`(?m)^func Fuzz`).FindAllString(text, -1)) })
	return n
}

// eachFile calls do for each file of the repository whose name ends so.
func eachFile(t *testing.T, suffix string, do func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, suffix):
			return nil
		}
		data, err := os.ReadFile(path)
		if err == nil {
			do(path, string(data))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The table of capabilities in docs/contract.md says what the backends declare.
func TestCapabilities(t *testing.T) {
	rows := table(document(t, "docs/contract.md"), "| Capability |")
	if len(rows) == 0 {
		t.Fatal("docs/contract.md has no table of capabilities")
	}
	sources := map[string]func() string{
		"memory": func() string { return "memory://?store=capabilities" },
		"Redis": func() string {
			srv := redistest.Single(t)
			u := url.URL{Scheme: "redis", Host: srv.Addr()}
			if opt := srv.ClientOption(); opt.Password != "" {
				u.User = url.UserPassword(opt.Username, opt.Password)
			}
			return u.String()
		},
		"Postgres": func() string {
			srv := pgtest.Single(t)
			return srv.URL(srv.Database(t))
		},
	}
	for i, name := range rows[0][2:] {
		source, ok := sources[name]
		if !ok {
			t.Errorf("docs/contract.md has a column %q, which this test does not know", name)
			continue
		}
		cfg, err := locker.LoadConfig(source())
		if err != nil {
			t.Fatal(err)
		}
		l, err := locker.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, problem := range differences(l.Capabilities(), rows[1:], i+2) {
			t.Errorf("docs/contract.md, %s: %s", name, problem)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		delete(sources, name)
	}
	for name := range sources {
		t.Errorf("docs/contract.md has no column %q", name)
	}
}

// differences compares a column of the table with what a backend declares.
func differences(caps driver.Capabilities, rows [][]string, column int) (problems []string) {
	said := map[string]string{}
	for _, row := range rows {
		if m := regexp.MustCompile("^`(\\w+)`").FindStringSubmatch(row[0]); m != nil {
			said[m[1]] = row[column]
		}
	}
	check := func(name, want string) {
		if cell, ok := said[name]; !ok {
			problems = append(problems, "there is no row for "+name)
		} else if begins, _, _ := strings.Cut(cell, ":"); !strings.HasPrefix(begins+" ", want+" ") && !strings.HasPrefix(begins, want+",") {
			problems = append(problems, fmt.Sprintf("%s is %q, and the backend declares %s", name, cell, want))
		}
	}
	for _, c := range driver.All() {
		check(c.String(), map[bool]string{true: "yes", false: "no"}[caps.Has.Has(c)])
	}
	check("Granularity", words(caps.Granularity))
	check("MinTTL", words(max(caps.MinTTL, time.Millisecond)))
	if caps.SessionValidity == 0 {
		check("SessionValidity", "0")
	} else if !strings.Contains(said["SessionValidity"], words(caps.SessionValidity)) {
		problems = append(problems, fmt.Sprintf("SessionValidity is %q, and the backend declares %s", said["SessionValidity"], words(caps.SessionValidity)))
	}
	return problems
}

// words is d as documents write it: "50 ms", "10 s".
func words(d time.Duration) string {
	return regexp.MustCompile(`^([0-9.]+)`).ReplaceAllString(d.String(), "$1 ")
}

// table is the cells of the table whose first line begins so, without the line below it.
func table(doc, begins string) (rows [][]string) {
	lines := strings.Split(doc, "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, begins) {
			continue
		}
		for j, line := range lines[i:] {
			if !strings.HasPrefix(line, "|") {
				break
			}
			if j == 1 {
				continue
			}
			var cells []string
			for _, cell := range strings.Split(strings.Trim(line, "|"), "|") {
				cells = append(cells, strings.TrimSpace(cell))
			}
			rows = append(rows, cells)
		}
		break
	}
	return rows
}

func TestDifferencesAreFound(t *testing.T) {
	rows := table("| Capability | Clause | x |\n|---|---|---|\n| `Granularity`: how late | | 20 ms |\n| `SharedStore`: others | | no |\n\ntext", "| Capability |")
	caps := driver.Capabilities{Granularity: 50 * time.Millisecond, Has: driver.NewSet(driver.SharedStore)}
	problems := strings.Join(differences(caps, rows[1:], 2), "\n")
	for _, want := range []string{`Granularity is "20 ms", and the backend declares 50 ms`, `SharedStore is "no", and the backend declares yes`, "there is no row for MinTTL"} {
		if !strings.Contains(problems, want) {
			t.Errorf("%q is not among\n%s", want, problems)
		}
	}
}

var link = regexp.MustCompile(`\]\(([^()\s]+)\)`)

// Links from one document to another lead to a file that is there, and to a heading in it.
func TestLinks(t *testing.T) {
	links := 0
	eachFile(t, ".md", func(path, text string) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			file, heading, _ := strings.Cut(m[1], "#")
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), filepath.FromSlash(file))
			}
			info, err := os.Stat(target)
			if err != nil {
				t.Errorf("%s: %s leads nowhere", path, m[1])
				continue
			}
			if heading == "" || info.IsDir() {
				continue
			}
			data, err := os.ReadFile(target)
			if err != nil {
				t.Fatal(err)
			}
			if !anchors(string(data))[heading] {
				t.Errorf("%s: %s has no heading %q", path, target, heading)
			}
		}
	})
	if links == 0 {
		t.Error("no document has a link; is the extraction broken?")
	}
}

// anchors are the names by which GitHub's links find the headings of a document.
func anchors(doc string) map[string]bool {
	all := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(doc, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all[strings.ReplaceAll(name, " ", "-")] = true
	}
	return all
}

func TestAnchors(t *testing.T) {
	all := anchors("# A *b*: c\n\ntext\n\n## `lockgen config`\n")
	if !all["a-b-c"] || !all["lockgen-config"] || len(all) != 2 {
		t.Errorf("got %v", all)
	}
}
