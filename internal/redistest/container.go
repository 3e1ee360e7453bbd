package redistest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
)

const (
	// sessionLabel marks our containers; its value is the test process that made them.
	sessionLabel = "lockstep.redistest.session"

	// oldAge is the age at which a container counts as left behind, because its reaper was killed too. It is far
	// above the longest soak test: the container may belong to another process that is still at work.
	oldAge = 6 * time.Hour

	// dockerTimeout is how long a daemon may take to answer at all. One that hangs must not look like one that is
	// slow.
	dockerTimeout = 5 * time.Second

	workDir = "/data" // the working directory in the container
)

// engine is the Docker daemon, and what was found out about it.
type engine struct {
	provider *testcontainers.DockerProvider
	client   client.APIClient
	session  string
	image    string

	// local says that the daemon's host is this very machine, network included: published ports are on 127.0.0.1,
	// and a container on the host's network is reachable as if it were a process.
	local bool
	host  string // where published ports are
}

// dockerEngine connects to Docker, once.
var dockerEngine = sync.OnceValues(connectDocker)

func connectDocker() (*engine, error) {
	setDefault("TESTCONTAINERS_RYUK_DISABLED", "true") // see reaper.go
	log.SetDefault(log.NewNoopLogger())                // what went wrong comes back as an error

	// Testcontainers looks in many places and goes on with the next when one does not answer. A DOCKER_HOST that
	// somebody has set is the only one that was meant.
	ctx, cancel := context.WithTimeout(context.Background(), dockerTimeout)
	defer cancel()
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		if err := ping(ctx); err != nil {
			return nil, fmt.Errorf("DOCKER_HOST=%s: %w", host, err)
		}
	}

	type result struct {
		provider *testcontainers.DockerProvider
		err      error
	}
	connected := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			// Some of its lookups panic instead of returning an error.
			if p := recover(); p != nil {
				r.err = fmt.Errorf("%v", p)
			}
			connected <- r
		}()
		r.provider, r.err = testcontainers.NewDockerProvider(testcontainers.WithLogger(log.NewNoopLogger()))
	}()
	var r result
	select {
	case r = <-connected:
	case <-ctx.Done():
		r.err = fmt.Errorf("the Docker daemon did not answer within %s", dockerTimeout)
	}
	if r.err != nil {
		return nil, r.err
	}

	e := &engine{
		provider: r.provider,
		client:   r.provider.Client(),
		session:  fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano()),
	}
	if _, err := e.client.Ping(ctx, client.PingOptions{}); err != nil {
		return nil, err
	}
	if err := e.findHost(ctx); err != nil {
		return nil, err
	}
	var err error
	if e.image, err = chooseImage(ctx, e.client); err != nil {
		return nil, err
	}
	if err := pullImage(e.client, e.image); err != nil {
		return nil, err
	}
	if err := tellReaper(reapSession + e.session); err != nil {
		return nil, err
	}
	_ = removeContainers(ctx, e.client, sessionLabel, oldAge)
	return e, nil
}

func ping(ctx context.Context) error {
	c, err := client.New(client.FromEnv)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Ping(ctx, client.PingOptions{})
	return err
}

// findHost finds out where published ports are.
//
// Testcontainers takes the bridge's gateway when the file /.dockerenv exists, as it does in a container that uses
// the daemon of its host. But the file also exists on virtual machines that were made from a container image and
// run a daemon of their own. What tells the two apart: only in the second does the gateway's address belong to this
// machine.
func (e *engine) findHost(ctx context.Context) error {
	bridge, err := e.client.NetworkInspect(ctx, "bridge", client.NetworkInspectOptions{})
	if err == nil {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			return err
		}
		for _, config := range bridge.Network.IPAM.Config {
			gateway := config.Gateway
			if !gateway.IsValid() {
				gateway = config.Subnet.Masked().Addr().Next() // older engines leave it out
			}
			e.local = e.local || slices.ContainsFunc(addrs, func(a net.Addr) bool {
				n, ok := a.(*net.IPNet)
				return ok && n.IP.String() == gateway.String()
			})
		}
	}
	if e.local {
		setDefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
	}
	e.host, err = e.provider.DaemonHost(ctx)
	return err
}

func setDefault(variable, value string) {
	if _, ok := os.LookupEnv(variable); !ok {
		os.Setenv(variable, value)
	}
}

// publishedHost returns the host where containers publish their ports, if there is a Docker.
func publishedHost() (string, error) {
	e, err := dockerEngine()
	if err != nil {
		return "", err
	}
	return e.host, nil
}

// dockerNode is a redis-server in a container.
type dockerNode struct {
	engine *engine
	id     string
}

func startContainer(ctx context.Context, s spec, port, busPort int) (_ node, _ string, err error) {
	if os.Getenv(imageVariable) != "" {
		defer func() {
			if err != nil {
				// The user named this image. Another Redis would not be the one that was asked for.
				err = errStop{err}
			}
		}()
	}
	e, err := dockerEngine()
	if err != nil {
		return nil, "", err
	}
	host, bind := e.host, ""
	if s.direct {
		// The nodes of a Cluster tell each other's addresses to clients, so one address must work from everywhere.
		// Addresses of containers would do where the bridge is reachable, but a container may have another one after
		// a restart.
		if !e.local {
			return nil, "", errors.New("the Docker daemon is not on this machine's network, " +
				"so that servers would not be reachable under the addresses that they know each other by")
		}
		host, bind = "127.0.0.1", "127.0.0.1"
	}
	number := network.MustParsePort(strconv.Itoa(port) + "/tcp")

	req := testcontainers.ContainerRequest{
		Image: e.image,
		// Not the image's entrypoint: the official one gives up root first, and cannot read the files then.
		Entrypoint: []string{"redis-server"},
		Cmd:        s.commandLine(bind, port, busPort),
		Labels:     map[string]string{sessionLabel: e.session},
		ConfigModifier: func(c *container.Config) {
			c.WorkingDir = workDir
		},
		HostConfigModifier: func(h *container.HostConfig) {
			if s.direct {
				h.NetworkMode = network.NetworkHost
				return
			}
			// A fixed port on the host: one that Docker chooses changes when the container is killed and started again.
			binding := network.PortBinding{HostPort: strconv.Itoa(port)}
			if e.local {
				binding.HostIP = netip.MustParseAddr("127.0.0.1")
			}
			h.PortBindings = network.PortMap{number: {binding}}
		},
	}
	if !s.direct {
		req.ExposedPorts = []string{number.String()}
	}
	if len(s.env) > 0 {
		req.Env = make(map[string]string)
	}
	for _, v := range s.env {
		req.Env[v[0]] = v[1]
	}
	for _, f := range s.files {
		req.Files = append(req.Files, testcontainers.ContainerFile{
			Reader:            bytes.NewReader(f.content),
			ContainerFilePath: path.Join(workDir, f.name),
			FileMode:          0o644,
		})
	}

	c, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{
		ContainerRequest: req,
		Started:          true,
		Logger:           log.NewNoopLogger(),
	})
	if c == nil {
		return nil, "", fmt.Errorf("image %s: %w", e.image, err)
	}
	n := &dockerNode{engine: e, id: c.GetContainerID()}
	if err != nil {
		err = fmt.Errorf("image %s: %w", e.image, err)
		if gone := n.exited(ctx); gone != nil {
			err = fmt.Errorf("%w\n%w", err, gone)
		}
		n.terminate()
		return nil, "", err
	}
	return n, net.JoinHostPort(host, strconv.Itoa(port)), nil
}

func (n *dockerNode) kill(ctx context.Context) error {
	_, err := n.engine.client.ContainerKill(ctx, n.id, client.ContainerKillOptions{Signal: "SIGKILL"})
	if err != nil {
		return err
	}
	return poll(ctx, "the container has ended", func() error {
		state, err := n.inspect(ctx)
		if err == nil && state.Running {
			err = errors.New("it is running")
		}
		return err
	})
}

func (n *dockerNode) restart(ctx context.Context) error {
	_, err := n.engine.client.ContainerStart(ctx, n.id, client.ContainerStartOptions{})
	return err
}

func (n *dockerNode) pause(ctx context.Context) error {
	_, err := n.engine.client.ContainerPause(ctx, n.id, client.ContainerPauseOptions{})
	return err
}

func (n *dockerNode) resume(ctx context.Context) error {
	_, err := n.engine.client.ContainerUnpause(ctx, n.id, client.ContainerUnpauseOptions{})
	return err
}

func (n *dockerNode) terminate() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	// By force at once: testcontainers' Terminate stops politely first. What is left by a failure is the reaper's.
	_, _ = n.engine.client.ContainerRemove(ctx, n.id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
}

func (n *dockerNode) inspect(ctx context.Context) (*container.State, error) {
	r, err := n.engine.client.ContainerInspect(ctx, n.id, client.ContainerInspectOptions{})
	if err != nil {
		return nil, err
	}
	return r.Container.State, nil
}

func (n *dockerNode) exited(ctx context.Context) error {
	state, err := n.inspect(ctx)
	if err != nil || state.Running {
		return nil
	}
	var text bytes.Buffer
	options := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "20"}
	if logs, err := n.engine.client.ContainerLogs(ctx, n.id, options); err == nil {
		_, _ = stdcopy.StdCopy(&text, &text, logs)
		logs.Close()
	}
	return fmt.Errorf("the container has ended (%s):\n%s", state.Status, tail(text.String()))
}
