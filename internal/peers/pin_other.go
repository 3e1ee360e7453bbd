//go:build !linux

package peers

import "errors"

func pin(int) error { return errors.New("processes are kept on one core on Linux only") }
