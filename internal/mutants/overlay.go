package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const chosenEnv = "LOCKSTEP_CORE_MUTANT"

// chooser is added to package locker by the overlay.
const chooser = `package locker

import "os"

var mutant = os.Getenv("` + chosenEnv + `")
`

// writeOverlay writes package locker with all changes into dir, and returns the file for
// go build's -overlay.
func writeOverlay(root, dir string, changes []change) (string, error) {
	sources := map[string]string{}
	for _, c := range changes {
		text, ok := sources[c.file]
		if !ok {
			data, err := os.ReadFile(filepath.Join(root, "locker", c.file))
			if err != nil {
				return "", err
			}
			text = string(data)
		}
		if n := strings.Count(text, c.old); n != 1 {
			return "", fmt.Errorf("the mutant %q: its text stands %d times in locker/%s, want once; the core has changed, so change the table:\n%s", c.name, n, c.file, c.old)
		}
		chosen := fmt.Sprintf("(mutant == %q)", c.name)
		sources[c.file] = strings.Replace(text, c.old, strings.ReplaceAll(c.new, "MUTATED", chosen), 1)
	}
	sources["mutant.go"] = chooser
	replace := map[string]string{}
	for name, text := range sources {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(root, "locker", name)] = file
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, data, 0o644)
}
