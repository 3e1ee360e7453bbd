package packaging

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ReadRecord reads the lines that WriteRecord wrote. What was never recorded is empty.
func ReadRecord(name string) ([]string, error) {
	data, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return slices.DeleteFunc(strings.Split(string(data), "\n"), func(line string) bool {
		return line == "" || strings.HasPrefix(line, "#")
	}), nil
}

// WriteRecord writes lines beneath a comment.
func WriteRecord(name, comment string, lines []string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	text := "# " + comment + "\n" + strings.Join(append(slices.Clone(lines), ""), "\n")
	return os.WriteFile(name, []byte(text), 0o644)
}

// Compare says which lines of record are not there any more, and which are new. A
// line that changed is both.
func Compare(record, now []string) (removed, added []string) {
	return without(record, now), without(now, record)
}

func without(lines, others []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return slices.Contains(others, l) })
}
