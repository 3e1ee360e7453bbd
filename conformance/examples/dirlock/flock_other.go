//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package dirlock

import (
	"os"

	"github.com/lockstep-go/lockstep/locker/driver"
)

func tryFlock(*os.File) (bool, error) { return false, driver.ErrUnsupported }
