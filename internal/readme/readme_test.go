// Package readme keeps the Go code in the documents of this repository true: every block
// stands, word for word, in a file below this directory that go test compiles, vets and,
// where it is an Example, runs. What a block marked "text" shows is the output of one.
package readme

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

func TestBlocksAreChecked(t *testing.T) {
	var files, sources []string
	for _, dir := range []string{".", "quickstart", "backend", root + "/conformance/examples/dirlock"} {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if filepath.Base(name) == "readme_test.go" {
				continue
			}
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files, sources = append(files, name), append(sources, normal(string(data)))
		}
	}

	blocks := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, language := range []string{"go", "text"} {
			for _, b := range fenced(string(data), language) {
				blocks++
				if !containsBlock(sources, b.text) {
					t.Errorf("%s:%d: this block is in none of %s:\n%s", path, b.line, strings.Join(files, ", "), b.text)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if blocks == 0 {
		t.Error("no document has a block; is the extraction broken?")
	}
}

type block struct {
	line int
	text string
}

// fenced are the blocks of a document in one language.
func fenced(doc, language string) (blocks []block) {
	lines := strings.Split(doc, "\n")
	for i := 0; i < len(lines); i++ {
		if strings.TrimSpace(lines[i]) != "```"+language {
			continue
		}
		start := i + 1
		for i++; i < len(lines) && strings.TrimSpace(lines[i]) != "```"; i++ {
		}
		blocks = append(blocks, block{start + 1, strings.Join(lines[start:min(i, len(lines))], "\n")})
	}
	return blocks
}

func containsBlock(sources []string, text string) bool {
	for _, s := range sources {
		if want := normal(text); want != "\n" && strings.Contains(s, want) {
			return true
		}
	}
	return false
}

// normal takes away the indentation, and the comment marks before an Example's output.
func normal(source string) string {
	var b strings.Builder
	b.WriteByte('\n')
	for _, line := range strings.Split(strings.TrimSpace(source), "\n") {
		line = strings.TrimSpace(line)
		b.WriteString(strings.TrimPrefix(line, "// "))
		b.WriteByte('\n')
	}
	return b.String()
}

func TestABlockThatIsNotThere(t *testing.T) {
	doc := "text\n```go\nx := 1\n```\n```json\n{}\n```\n```go\nx := 2\n```\n"
	blocks := fenced(doc, "go")
	if len(blocks) != 2 || blocks[0].text != "x := 1" || blocks[1].line != 9 {
		t.Fatalf("got %+v", blocks)
	}
	sources := []string{normal("func f() {\n\tx := 1\n}\n")}
	if !containsBlock(sources, blocks[0].text) || containsBlock(sources, blocks[1].text) || containsBlock(sources, "") {
		t.Error("the comparison is broken")
	}
}
