package packaging

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/mod/modfile"
)

// App is the module of a user: empty at first, outside the workspace, with a module
// cache that has never seen the published modules.
type App struct {
	Dir     string
	proxies []string // GOPROXY, to be tried one after the other
	env     []string
}

const appPath = "app.invalid/app"

// NewApp makes an App in the folder dir, which gets the modules whose paths begin with
// one of prefixes from the module proxy in the folder proxy, and everything else
// from where this machine gets it. sums are go.sum files with the checksums of third
// parties.
func NewApp(ctx context.Context, dir, proxy string, prefixes, sums []string) (*App, error) {
	a := &App{Dir: filepath.Join(dir, "app")}
	if err := os.MkdirAll(a.Dir, 0o755); err != nil {
		return nil, err
	}
	// The oldest go line with today's rules: go get raises it to what the modules need.
	if err := a.Write("go.mod", "module "+appPath+"\n\ngo 1.21\n"); err != nil {
		return nil, err
	}
	// Known checksums are verified like any other, but without asking a server for them.
	var known strings.Builder
	for _, name := range sums {
		data, err := os.ReadFile(name)
		if err != nil && !os.IsNotExist(err) { // a module without requirements has none
			return nil, err
		}
		known.Write(data)
	}
	if err := a.Write("go.sum", known.String()); err != nil {
		return nil, err
	}

	out, err := exec.CommandContext(ctx, "go", "env", "GOPROXY", "GOMODCACHE", "GONOSUMDB").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	own := strings.Split(string(out), "\n")
	// The download folder of a module cache is itself laid out as a module proxy.
	local := "file://" + filepath.ToSlash(proxy) + ",file://" + filepath.ToSlash(filepath.Join(own[1], "cache", "download"))
	a.proxies = []string{local, local + "," + own[0]}

	noSum := strings.Join(prefixes, ",")
	if own[2] != "" {
		noSum += "," + own[2]
	}
	a.env = append(os.Environ(),
		"GOWORK=off",
		"GOMODCACHE="+filepath.Join(dir, "modcache"),
		"GOBIN="+a.Bin(),
		// trimpath so that what was built in the last run is found in the build cache,
		// although the module cache was another folder; modcacherw so that the folder
		// can be removed.
		"GOFLAGS=-mod=mod -trimpath -modcacherw -buildvcs=false",
		"GONOSUMDB="+noSum,
		"GONOPROXY=none", // a user's GOPRIVATE would go past the proxy
	)
	return a, nil
}

// Bin is the folder into which go install puts programs.
func (a *App) Bin() string { return filepath.Join(filepath.Dir(a.Dir), "bin") }

// Offline keeps a from asking anything but its two folders for modules, for a run that
// is meant to fail.
func (a *App) Offline() { a.proxies = a.proxies[:1] }

// Write writes a file of the App.
func (a *App) Write(name, text string) error {
	return os.WriteFile(filepath.Join(a.Dir, name), []byte(text), 0o644)
}

// Go runs the go command in the App, at first without the network and, if that fails,
// once more with it. The error contains what the command printed, both times.
//
// Without the first attempt each run would ask the network whether any beginning of a
// module's path is a module too.
func (a *App) Go(ctx context.Context, args ...string) (stdout string, _ error) {
	stdout, _, err := a.run(ctx, args)
	return stdout, err
}

// Notices is Go for what the go command says beside its output.
func (a *App) Notices(ctx context.Context, args ...string) (stderr string, _ error) {
	_, stderr, err := a.run(ctx, args)
	return stderr, err
}

func (a *App) run(ctx context.Context, args []string) (stdout, stderr string, _ error) {
	var failed []error
	for _, proxy := range a.proxies {
		var out, errout strings.Builder
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = a.Dir
		cmd.Env = append(a.env[:len(a.env):len(a.env)], "GOPROXY="+proxy)
		cmd.Stdout, cmd.Stderr = &out, &errout
		err := cmd.Run()
		if err == nil {
			return out.String(), errout.String(), nil
		}
		failed = append(failed, fmt.Errorf("GOPROXY=%s go %s: %w\n%s%s", proxy, strings.Join(args, " "), err, out.String(), errout.String()))
	}
	return "", "", errors.Join(failed...)
}

// Graph is the go line of the App, and every module in its build list but itself: what
// a user sees of a go get.
func (a *App) Graph(ctx context.Context) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(a.Dir, "go.mod"))
	if err != nil {
		return nil, err
	}
	f, err := modfile.ParseLax("go.mod", data, nil)
	if err != nil {
		return nil, err
	}
	list, err := a.Go(ctx, "list", "-m", "all")
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(list), "\n")
	return append([]string{"go " + f.Go.Version}, lines[1:]...), nil
}
