package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIRECTORY",
		Short:   "Write the man pages into a directory",
		Example: `  lockstep man /usr/local/share/man/man1`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			root := cmd.Root()
			for _, c := range append([]*cobra.Command{root}, root.Commands()...) {
				if c.IsAvailableCommand() || c == root {
					if err := writeMan(c, given[0]); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

// writeMan writes the page of one command. It is of no day: what is generated must be the same
// whenever it is.
func writeMan(c *cobra.Command, dir string) error {
	var page bytes.Buffer
	day := new(time.Time)
	c.DisableAutoGenTag = true
	if err := doc.GenMan(c, &doc.GenManHeader{Title: "LOCKSTEP", Section: "1", Date: day, Source: "Lockstep", Manual: "Lockstep"}, &page); err != nil {
		return err
	}
	text := bytes.Replace(page.Bytes(), []byte(`"`+day.Format("Jan 2006")+`"`), []byte(`""`), 1)
	name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
	return os.WriteFile(filepath.Join(dir, name), text, 0o644)
}
