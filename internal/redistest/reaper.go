package redistest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

// The reaper removes what a test process leaves behind, also when that process was killed, timed out or crashed, so
// that no package needs a TestMain for it. It is this same test binary, started a second time with a variable set
// that makes it do nothing but wait for the end of its standard input, which is the end of the first process.
//
// Testcontainers has a reaper of its own, Ryuk, in a container: one more image to have, which a machine without a
// registry has not, and it knows nothing of directories. It is off unless TESTCONTAINERS_RYUK_DISABLED says
// otherwise.

const reaperVariable = "LOCKSTEP_REDISTEST_REAPER"

func init() {
	if os.Getenv(reaperVariable) == "" {
		return
	}
	reap(os.Stdin)
	os.Exit(0)
}

// What the first process tells the reaper, line by line.
const (
	reapDirectory = "directory "
	reapSession   = "session " // all containers with this value of sessionLabel
)

func reap(orders io.Reader) {
	var directories, sessions []string
	for lines := bufio.NewScanner(orders); lines.Scan(); {
		if dir, ok := strings.CutPrefix(lines.Text(), reapDirectory); ok {
			directories = append(directories, dir)
		}
		if session, ok := strings.CutPrefix(lines.Text(), reapSession); ok {
			sessions = append(sessions, session)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, session := range sessions {
		docker, err := testcontainers.NewDockerClientWithOpts(ctx)
		if err != nil {
			continue // there is nobody left to tell; removeOld finds them another time
		}
		_ = removeContainers(ctx, docker, sessionLabel+"="+session, 0)
	}
	for _, dir := range directories {
		_ = os.RemoveAll(dir)
	}
}

var reaper = sync.OnceValues(func() (io.Writer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), reaperVariable+"=1")
	cmd.Dir = os.TempDir() // not the package's directory, which may go away
	detach(cmd)
	// Output goes nowhere: go test waits for everyone who holds the test's own output.
	orders, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the process that cleans up: %w", err)
	}
	return orders, nil
})

var reaperMutex sync.Mutex

func tellReaper(order string) error {
	w, err := reaper()
	if err != nil {
		return err
	}
	reaperMutex.Lock()
	defer reaperMutex.Unlock()
	_, err = io.WriteString(w, order+"\n")
	return err
}

// removeLater has the directory removed at the end of this process, if nobody has done it before.
func removeLater(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	return tellReaper(reapDirectory + dir)
}

// removeContainers removes the containers with that label that are at least so old.
func removeContainers(ctx context.Context, docker client.APIClient, label string, age time.Duration) error {
	list, err := docker.ContainerList(ctx, client.ContainerListOptions{
		All:     true,
		Filters: make(client.Filters).Add("label", label),
	})
	if err != nil {
		return err
	}
	for _, c := range list.Items {
		if age == 0 || time.Since(time.Unix(c.Created, 0)) > age {
			_, e := docker.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
			err = errors.Join(err, e)
		}
	}
	return err
}
