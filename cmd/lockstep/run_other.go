//go:build !unix

package main

import (
	"errors"
	"os"
)

func run(*store, *runFlags) error {
	return &exitError{exitConfig, errors.New("run needs process groups and signals, which this system has not; the other commands work")}
}

func width(*os.File) int { return 0 }
