package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// execute runs one command line and returns the exit code.
func execute(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.Execute()
	if err != nil {
		report(err)
	}
	return exitCode(err)
}

func newRoot() *cobra.Command {
	s := new(store)
	root := &cobra.Command{
		Use:   "lockstep",
		Short: "Named locks for commands and for those who operate them",
		Long: `lockstep runs a command while it holds a named lock, shows who holds what, and says
whether a store is fit to hold locks in.

The store is configured as in a program: by --config, or by LOCKSTEP_CONFIG. Either is a URL such
as redis://localhost:6379 or postgres://app@db/app, the path of a file with JSON, or JSON itself.
A password on the command line can be read by every user of the machine: put it into a file, or
into the variable. Variables of single fields, such as LOCKSTEP_REDIS_PASSWORD, count too.

Exit codes of lockstep itself, beside 0:

    120  the lock was lost while the command was running
    121  the lock was not acquired: another holder has it
    122  the store does not answer, or refuses
    123  the configuration or the command line is wrong
    125  anything else
    126  the command cannot be executed
    127  there is no such command

Those of the commands, such as run and doctor, stand in their help.`,
		Args:              args(cobra.NoArgs),
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
		Version:           version(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return &exitError{code: exitConfig}
		},
	}
	root.PersistentFlags().StringVarP(&s.source, "config", "c", "", "the store: a URL, a file with JSON, JSON, or env:NAME (default: what LOCKSTEP_CONFIG holds)")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, err) })
	root.AddCommand(newRun(s), newList(s), newInspect(s), newBreak(s), newWatch(s), newDoctor(s), newBench(s), newMan())
	return root
}

// usage is a mistake on the command line.
func usage(cmd *cobra.Command, err error) error {
	return &exitError{exitConfig, errors.New(err.Error() + "; see " + cmd.CommandPath() + " --help")}
}

// args are the arguments that a command takes. Cobra's own errors would not be told from ours.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := check(cmd, given); err != nil {
			return usage(cmd, err)
		}
		return nil
	}
}
