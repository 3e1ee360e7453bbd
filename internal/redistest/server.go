package redistest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// Server is one Redis. Its methods are safe for concurrent use.
type Server struct {
	addr     string
	busPort  int // of a Cluster node
	password string
	ca       *authority           // nil without TLS
	url      string               // of a server given by URL
	option   rueidis.ClientOption // the same
	node     *process             // nil for a server given by URL
	private  bool                 // ends with its test

	mu    sync.Mutex
	state state
}

// Addr returns host:port.
func (s *Server) Addr() string { return s.addr }

// URL returns redis://[:password@]host:port, or rediss:// with TLS. A server that was given by URL returns that URL.
func (s *Server) URL() string {
	if s.node == nil {
		return s.url
	}
	u := url.URL{Scheme: "redis", Host: s.addr}
	if s.ca != nil {
		u.Scheme = "rediss"
	}
	if s.password != "" {
		u.User = url.UserPassword("", s.password)
	}
	return u.String()
}

// Owned reports whether the server is this package's own, so that it can be paused, killed and restarted.
func (s *Server) Owned() bool { return s.node != nil }

// TLSConfig returns what a client needs to trust a server that was started with [TLS], and nil for another.
func (s *Server) TLSConfig() *tls.Config {
	if s.ca == nil {
		return s.option.TLSConfig.Clone()
	}
	host, _, _ := net.SplitHostPort(s.addr)
	return s.ca.clientConfig(host)
}

// CAFile returns the path of the PEM file with the authority that signed the server's certificate; empty without
// [TLS].
func (s *Server) CAFile() string {
	if s.ca == nil {
		return ""
	}
	return s.ca.path
}

// ClientOption returns what a rueidis client needs to reach this server: address, password, TLS. The rest is the
// caller's.
func (s *Server) ClientOption() rueidis.ClientOption {
	if s.node == nil {
		return s.option
	}
	return rueidis.ClientOption{InitAddress: []string{s.addr}, Password: s.password, TLSConfig: s.TLSConfig()}
}

// openURL returns the server that LOCKSTEP_REDIS_URL names.
func openURL(ctx context.Context, text string) (*Server, error) {
	option, err := rueidis.ParseURL(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", urlVariable, err)
	}
	srv := &Server{addr: option.InitAddress[0], url: text, option: option}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// The user named this server. To go on with another would test something else than was asked for.
	if err := srv.Cmd(ctx, "PING").Error(); err != nil {
		return nil, fmt.Errorf("%s: %s does not answer: %w", urlVariable, srv.addr, err)
	}
	return srv, nil
}

// probe asks for a sign of life on a connection of its own. Any reply but -LOADING will do: an error such as -NOAUTH
// comes from a server that is ready as well. It speaks the inline protocol because a test may have renamed HELLO.
func (s *Server) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if s.ca != nil {
		conn = tls.Client(conn, s.TLSConfig())
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if strings.HasPrefix(line, "-LOADING") {
		return errors.New(strings.TrimSpace(line))
	}
	return nil
}

// waitReady returns when the server answers, or when it has ended, or after some seconds.
func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	return poll(ctx, s.addr+" answers", func() error {
		err := s.probe(ctx)
		if err == nil {
			return nil
		}
		if gone := s.node.exited(); gone != nil && ctx.Err() == nil {
			return errStop{gone}
		}
		return err
	})
}

func (s *Server) terminate() {
	if s.node != nil {
		s.node.terminate()
	}
	if s.ca != nil {
		s.ca.remove()
	}
}

// errStop ends a poll.
type errStop struct{ error }

// poll calls check every 2 ms until it returns nil, an errStop, or ctx ends.
func poll(ctx context.Context, what string, check func() error) error {
	return pollEvery(ctx, 2*time.Millisecond, what, check)
}

func pollEvery(ctx context.Context, interval time.Duration, what string, check func() error) error {
	var last error
	for {
		err := check()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err // what went wrong before the time was up says more than that it is up
		}
		var stop errStop
		if errors.As(err, &stop) {
			return stop.error
		}
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w; at last: %w", what, context.Cause(ctx), last)
		}
	}
}
