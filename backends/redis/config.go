package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// Config says which Redis, and how. The zero value is a Redis on this machine. SetDefaults
// lists the defaults, Validate what is allowed, LoadEnv the environment variables.
//
// As a URL: redis://user:password@host:6379/0?validity=20s, rediss:// for TLS, or
// redis:///?masterSet=main&addrs=s1:26379&addrs=s2:26379 for several addresses.
//
//lockgen:requires sentinelUsername masterSet
//lockgen:requires sentinelPassword masterSet
//lockgen:check checkAddrs
//lockgen:check checkDB
//lockgen:check checkPassword
type Config struct {
	// Addrs are host:port of one Redis; of some nodes of a Cluster; or, with MasterSet, of
	// the Sentinels. A path that begins with / is a unix socket, and stands alone.
	//
	//lockgen:default localhost:6379
	Addrs []string `json:"addrs"`

	// Username and Password are the ACL user's. A password alone is the default user's.
	Username string `json:"username"`
	Password string `json:"password" lockstep:"secret"`

	// DB is the number of the database. A Cluster has only 0.
	//
	//lockgen:min 0
	//lockgen:max 1 << 20
	DB int `json:"db"`

	// MasterSet is the name under which Sentinel watches the master. Empty: no Sentinel.
	MasterSet string `json:"masterSet"`

	// SentinelUsername and SentinelPassword are the ACL user's of the Sentinels, where they
	// ask for one. They are not the data servers'.
	SentinelUsername string `json:"sentinelUsername"`
	SentinelPassword string `json:"sentinelPassword" lockstep:"secret"`

	// TLS, where it is not nil, encrypts the connections.
	TLS *TLS `json:"tls"`

	// Prefix begins every key in Redis, so that several users can share one database. It
	// holds no brace and does not begin with "token:". Everyone who is to exclude each other
	// uses the same.
	//
	//lockgen:default lockstep
	//lockgen:maxlen 128
	//lockgen:not [{}] -- holds a brace, which would decide the Cluster slot
	//lockgen:not ^token: -- begins with token:, as the token counters of other prefixes do
	Prefix string `json:"prefix"`

	// Validity is how long a session's key outlives its process: it is renewed three times
	// within it. A process that cannot reach Redis for so long loses its sessions.
	//
	//lockgen:default 10s
	//lockgen:min 500ms
	//lockgen:max 1h
	Validity time.Duration `json:"validity"`

	// Timeout is how long the connection may stay silent before it counts as broken. It
	// bounds calls whose ctx has no end.
	//
	//lockgen:default 5s
	//lockgen:min 10ms
	//lockgen:max 5m
	Timeout time.Duration `json:"timeout"`

	// DialTimeout bounds one attempt to connect.
	//
	//lockgen:default 5s
	//lockgen:min 10ms
	//lockgen:max 5m
	DialTimeout time.Duration `json:"dialTimeout"`

	// Tracking is how waiters and holders hear of changes by others: "auto", by Redis's
	// announcements to caching clients where the server can, otherwise by polling; "on",
	// by announcements or Open fails; "off", by polling.
	//
	//lockgen:default TrackingAuto
	//lockgen:enum TrackingAuto TrackingOn TrackingOff
	Tracking string `json:"tracking"`

	// ClientName is shown by CLIENT LIST.
	//
	//lockgen:default lockstep
	//lockgen:pattern ^[!-~]*$ -- holds a space or a character that Redis does not allow
	ClientName string `json:"clientName"`

	// ClientOption, where it is not nil, has the last word on the client's options, for
	// what the fields above do not cover (a dialer, rotating credentials, a tls.Config).
	ClientOption func(*rueidis.ClientOption) `json:"-"`
}

// TLS is how connections are encrypted and who is trusted. The zero value trusts the
// system's authorities.
//
//lockgen:together certFile keyFile
type TLS struct {
	// CAFile is a PEM file with the authorities to trust instead of the system's.
	CAFile string `json:"caFile"`
	// CertFile and KeyFile are PEM files with the client's own certificate and key.
	CertFile string `json:"certFile"`
	KeyFile  string `json:"keyFile"`
	// ServerName is the name that the server's certificate must have. Default: the host.
	ServerName string `json:"serverName"`
	// InsecureSkipVerify accepts any certificate. For tests only.
	InsecureSkipVerify bool `json:"insecureSkipVerify"`
}

// The values that Tracking takes.
const (
	TrackingAuto = "auto"
	TrackingOn   = "on"
	TrackingOff  = "off"
)

// UnmarshalURL implements locker.URLConfig.
func (c *Config) UnmarshalURL(u *url.URL) error {
	switch u.Scheme {
	case "redis":
	case "rediss":
		if c.TLS == nil {
			c.TLS = &TLS{}
		}
	case "unix":
		if u.Host != "" || u.Path == "" {
			return errors.New("a unix URL is unix:///path/of/the/socket; give the database as ?db=1")
		}
		c.Addrs = []string{u.Path}
	}
	if u.User != nil {
		c.Username = u.User.Username()
		c.Password, _ = u.User.Password()
	}
	if u.Scheme == "unix" {
		return nil
	}
	if u.Host != "" {
		host, port := u.Hostname(), u.Port()
		if host == "" {
			host = "localhost"
		}
		if port == "" {
			port = "6379"
		}
		c.Addrs = []string{net.JoinHostPort(host, port)}
	}
	if db := strings.Trim(u.Path, "/"); db != "" {
		n, err := strconv.Atoi(db)
		if err != nil {
			return fmt.Errorf("db: the URL's path is the number of the database, not %q", u.Path)
		}
		c.DB = n
	}
	return nil
}

func (c *Config) checkAddrs() error {
	for i, a := range c.Addrs {
		field := fmt.Sprintf("addrs[%d]", i)
		if strings.HasPrefix(a, "/") {
			switch {
			case len(c.Addrs) > 1:
				return driver.Invalid(field, "%v is a unix socket, which stands alone, but there are %d addrs", a, len(c.Addrs))
			case c.MasterSet != "":
				return driver.Invalid(field, "%v is a unix socket, which stands alone, but masterSet is %v", a, c.MasterSet).With("masterSet")
			}
			continue
		}
		if strings.Contains(a, "@") || strings.Contains(a, "//") {
			return driver.Invalid(field, "want host:port; user and password have fields of their own (not shown: it may hold a secret)")
		}
		host, port, err := net.SplitHostPort(a)
		if n, perr := strconv.Atoi(port); err != nil || host == "" || perr != nil || n < 1 || n > 65535 {
			return driver.Invalid(field, "%v is not host:port with a port from 1 to 65535", a)
		}
	}
	return nil
}

func (c *Config) checkDB() error {
	if c.DB != 0 && len(c.Addrs) > 1 && c.MasterSet == "" {
		return driver.Invalid("db", "%d with %d addrs: a Cluster has only database 0", c.DB, len(c.Addrs)).With("addrs")
	}
	return nil
}

// checkPassword is no lockgen:requires, because ClientOption may give credentials as well.
// It does not show the name: in a URL it may be a password without the colon before it.
func (c *Config) checkPassword() error {
	if c.Username != "" && c.Password == "" && c.ClientOption == nil {
		return driver.Invalid("password", "it is empty, but username is given; in a URL, write a password alone as redis://:password@host").With("username")
	}
	return nil
}

// clientOption is what c means to rueidis. rueidislock changes some of it afterwards.
func (c Config) clientOption() (rueidis.ClientOption, error) {
	opt := rueidis.ClientOption{
		InitAddress: c.Addrs, Username: c.Username, Password: c.Password, SelectDB: c.DB,
		ClientName: c.ClientName,
		Dialer:     net.Dialer{Timeout: c.DialTimeout, KeepAlive: min(c.Timeout, time.Second)},
		// How long a connection may be silent; rueidis pings it when it is idle.
		ConnWriteTimeout: c.Timeout,
		// A retry of rueidis's would hide that an attempt's outcome is unknown; the core
		// repeats attempts by itself, with the same owner.
		DisableRetry: true,
		// One reader for replies and announcements. The other mode writes and reads in the
		// caller's goroutine, and a ctx that ends there breaks everybody's connection.
		AlwaysPipelining: true,
		DisableCache:     c.Tracking == TrackingOff,
	}
	if c.MasterSet != "" {
		opt.Sentinel = rueidis.SentinelOption{
			MasterSet: c.MasterSet, Username: c.SentinelUsername, Password: c.SentinelPassword,
			Dialer: opt.Dialer, ClientName: c.ClientName,
			// A demoted master closes no connection: without looking, one missed message
			// leaves the client with it for ever.
			TopologyRefreshInterval: 5 * time.Second,
		}
	}
	if strings.HasPrefix(c.Addrs[0], "/") {
		opt.ForceSingleClient = true
		opt.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "unix", addr)
		}
	}
	if c.TLS != nil {
		conf, err := c.TLS.config()
		if err != nil {
			return opt, fmt.Errorf("%w: tls.%w", driver.ErrInvalidConfig, err)
		}
		opt.TLSConfig = conf
		if c.MasterSet != "" {
			opt.Sentinel.TLSConfig = conf
		}
	}
	if c.ClientOption != nil {
		c.ClientOption(&opt)
	}
	return opt, nil
}

func (t *TLS) config() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("caFile: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("caFile: %q holds no certificate in PEM form", t.CAFile)
		}
	}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("certFile, keyFile: %w", err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	return conf, nil
}
