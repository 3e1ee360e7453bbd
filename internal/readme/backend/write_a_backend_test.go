package backend

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What docs/write-a-backend.md shows is the example that the suite proves, word for word.
func TestThePageShowsTheExample(t *testing.T) {
	flat := func(text string) string { return "\n" + strings.Join(trimmed(text), "\n") + "\n" }
	var example string
	names, err := filepath.Glob("../../../conformance/examples/dirlock/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		example += flat(string(data))
	}
	page, err := os.ReadFile("../../../docs/write-a-backend.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(page), "```go\n")[1:]
	if len(parts) == 0 || len(names) == 0 {
		t.Fatalf("%d blocks, %d files", len(parts), len(names))
	}
	for _, p := range parts {
		block, _, _ := strings.Cut(p, "```")
		if !strings.Contains(example, flat(block)) {
			t.Errorf("this block is in no file of the example:\n%s", block)
		}
	}
}

func trimmed(text string) []string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return lines
}
