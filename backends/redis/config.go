package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// Config says which Redis, and how. The zero value is a Redis on this machine. SetDefaults
// lists the defaults, Validate what is allowed, LoadEnv the environment variables.
//
// As a URL: redis://user:password@host:6379/0?validity=20s, rediss:// for TLS, or
// redis:///?masterSet=main&addrs=s1:26379&addrs=s2:26379 for several addresses. A URL that names
// a host, a user or a socket replaces the whole connection that was configured before.
//
//lockgen:requires sentinelUsername masterSet
//lockgen:requires sentinelPassword masterSet
//lockgen:requires sentinelPasswordFile masterSet
//lockgen:check checkAddrs
//lockgen:check checkDB
//lockgen:check checkPassword
type Config struct {
	//lockgen:default localhost:6379

	// Addrs are host:port of one Redis; of some nodes of a Cluster; or, with MasterSet, of
	// the Sentinels. A path that begins with / is a unix socket, and stands alone.
	Addrs []string `json:"addrs" lockstep:"connection"`

	// Username and Password are those of the ACL user. A password alone is the default user's.
	Username string        `json:"username" lockstep:"connection"`
	Password driver.Secret `json:"password" lockstep:"connection"`

	// PasswordFile is a file that holds the password, instead of Password. It is read for each
	// new connection, so that the password can be changed while the program runs; one newline
	// at its end is ignored.
	PasswordFile string `json:"passwordFile" lockstep:"connection"`

	//lockgen:min 0
	//lockgen:max 1 << 20

	// DB is the number of the database. A Cluster has only 0.
	DB int `json:"db" lockstep:"connection"`

	// MasterSet is the name under which Sentinel watches the master. Empty: no Sentinel.
	MasterSet string `json:"masterSet" lockstep:"connection"`

	// SentinelUsername and SentinelPassword are those of the Sentinels' ACL user, where they ask for
	// one. They are not the data servers'.
	SentinelUsername string        `json:"sentinelUsername" lockstep:"connection"`
	SentinelPassword driver.Secret `json:"sentinelPassword" lockstep:"connection"`

	// SentinelPasswordFile is to SentinelPassword what PasswordFile is to Password.
	SentinelPasswordFile string `json:"sentinelPasswordFile" lockstep:"connection"`

	// TLS, where it is not nil, encrypts the connections.
	TLS *TLS `json:"tls" lockstep:"connection"`

	//lockgen:default lockstep
	//lockgen:maxlen 128
	//lockgen:not [{}] -- holds a brace, which would decide the Cluster slot
	//lockgen:not ^token: -- begins with token:, as the token counters of other prefixes do

	// Prefix begins every key in Redis, so that several programs can share one database. It holds no
	// brace and does not begin with "token:". Clients exclude each other only if they use the same
	// Prefix.
	Prefix string `json:"prefix"`

	//lockgen:default 10s
	//lockgen:min 500ms
	//lockgen:max 1h

	// Validity is how long a session's key outlives its process: it is renewed three times
	// within it. A process that cannot reach Redis for so long loses its sessions.
	Validity time.Duration `json:"validity"`

	//lockgen:default 5s
	//lockgen:min 10ms
	//lockgen:max 5m

	// Timeout is how long the connection may stay silent before it counts as broken. It
	// bounds calls whose ctx has no end.
	Timeout time.Duration `json:"timeout"`

	//lockgen:default 5s
	//lockgen:min 10ms
	//lockgen:max 5m

	// DialTimeout bounds one attempt to connect.
	DialTimeout time.Duration `json:"dialTimeout"`

	//lockgen:default TrackingAuto
	//lockgen:enum TrackingAuto TrackingOn TrackingOff

	// Tracking is how waiters and holders hear of changes by others: "auto", by Redis's
	// announcements to caching clients where the server can, otherwise by polling; "on",
	// by announcements or Open fails; "off", by polling.
	Tracking string `json:"tracking"`

	//lockgen:default lockstep
	//lockgen:pattern ^[!-~]*$ -- holds a space or a character that Redis does not allow

	// ClientName is shown by CLIENT LIST.
	ClientName string `json:"clientName"`

	// ClientOption, where it is not nil, has the last word on the client's options, for
	// what the fields above do not cover (a dialer, rotating credentials, a tls.Config).
	ClientOption func(*rueidis.ClientOption) `json:"-"`
}

// TLS is how connections are encrypted and who is trusted. The zero value trusts the
// system's authorities. Files are read for each new connection, so that certificates can be
// renewed while the program runs.
//
//lockgen:together certFile keyFile
type TLS struct {
	// CAFile is a PEM file with the authorities to trust instead of the system's.
	//
	CAFile string `json:"caFile"`
	// CertFile is a PEM file with the client's own certificate.
	//
	CertFile string `json:"certFile"`
	// KeyFile is a PEM file with that certificate's key.
	//
	KeyFile string `json:"keyFile"`
	// ServerName is the name that the server's certificate must have. Default: the host.
	//
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

// UnmarshalURL implements driver.URLConfig. The loader has reset the connection before: the
// password of one server is not sent to another.
func (c *Config) UnmarshalURL(u *url.URL) error {
	switch u.Scheme {
	case "rediss":
		c.TLS = &TLS{}
	case "unix":
		if u.Host != "" || strings.Trim(u.Path, "/") == "" {
			return errors.New("a unix URL is unix:///path/of/the/socket; give the database as ?db=1")
		}
		c.Addrs = []string{u.Path}
	}
	if u.User != nil {
		c.Username = u.User.Username()
		password, _ := u.User.Password()
		c.Password = driver.NewSecret(password)
	}
	if u.Scheme == "unix" {
		return nil
	}
	if u.Host != "" {
		// url.Parse takes all before the last colon for the host.
		host, port := u.Hostname(), u.Port()
		if strings.Contains(u.Host, ",") {
			return errors.New("addrs: the URL has several hosts; write redis:///?addrs=host:port&addrs=host:port")
		}
		if strings.Contains(host, ":") && !strings.HasPrefix(u.Host, "[") {
			return errors.New("addrs: an IPv6 address stands in brackets: redis://[::1]:6379")
		}
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
		if err != nil || strings.Trim(db, "0123456789") != "" {
			return fmt.Errorf("db: the URL's path is the number of the database, not %q", u.Path)
		}
		c.DB = n
	}
	return nil
}

// checkAddrs does not show what may hold a user and a password.
func (c *Config) checkAddrs() error {
	for i, a := range c.Addrs {
		field := fmt.Sprintf("addrs[%d]", i)
		if strings.ContainsFunc(a, unicode.IsControl) {
			return driver.Invalid(field, "%v holds a control character, such as a newline at the end", a)
		}
		if strings.HasPrefix(a, "/") {
			switch {
			case len(c.Addrs) > 1:
				return driver.Invalid(field, "%v is a unix socket, which stands alone, but there are %d addrs", a, len(c.Addrs))
			case c.MasterSet != "":
				return driver.Invalid(field, "%v is a unix socket, which stands alone, but masterSet is %v", a, c.MasterSet).With("masterSet")
			case c.TLS != nil:
				return driver.Invalid("tls", "%v is a unix socket, which has no TLS; leave tls out", a).With(field)
			}
			continue
		}
		if strings.Contains(a, "@") || strings.Contains(a, "//") {
			return driver.Invalid(field, "want host:port; user and password have fields of their own (not shown: it may hold a secret)")
		}
		// SplitHostPort takes "+1" for a port, and anything for a host.
		host, port, err := net.SplitHostPort(a)
		if n, perr := strconv.Atoi(port); err != nil || !isHost(host) || strings.Trim(port, "0123456789") != "" || perr != nil || n < 1 || n > 65535 {
			return driver.Invalid(field, "%v is not host:port with a port from 1 to 65535", a)
		}
	}
	return nil
}

func isHost(host string) bool {
	if strings.Contains(host, ":") { // SplitHostPort has taken the brackets off
		_, err := netip.ParseAddr(host)
		return err == nil
	}
	return host != "" && !strings.ContainsAny(host, " ,/?#[]\"'`\\")
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
	if c.Username != "" && c.Password == (driver.Secret{}) && c.PasswordFile == "" && c.ClientOption == nil {
		return driver.Invalid("password", "it is empty, but username is given; in a URL, write a password alone as redis://:password@host").With("username")
	}
	for _, p := range []struct{ field, value, file string }{
		{"password", c.Password.Reveal(), c.PasswordFile},
		{"sentinelPassword", c.SentinelPassword.Reveal(), c.SentinelPasswordFile},
	} {
		if p.value != "" && p.file != "" {
			return driver.Invalid(p.field+"File", "it is %v, but %s is given too", p.file, rightsText{p.field}).With(p.field)
		}
	}
	return nil
}

// clientOption is what c means to rueidis. rueidislock changes some of it afterwards.
func (c Config) clientOption() (rueidis.ClientOption, error) {
	opt := rueidis.ClientOption{
		InitAddress: c.Addrs, Username: c.Username, Password: c.Password.Reveal(), SelectDB: c.DB,
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
			MasterSet: c.MasterSet, Username: c.SentinelUsername, Password: c.SentinelPassword.Reveal(),
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
	if c.PasswordFile != "" || c.SentinelPasswordFile != "" {
		opt.AuthCredentialsFn = c.login
		for _, sentinel := range []bool{false, true} {
			if _, err := c.loginFor(sentinel); err != nil {
				return opt, fmt.Errorf("%w: %w", driver.ErrInvalidConfig, err)
			}
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

// freshTLS gives each connection its own look at the files. What ClientOption has put in the place
// of was stays.
func (c Config) freshTLS(dial dialFunc, was *tls.Config) dialFunc {
	if c.TLS == nil || c.TLS.CAFile == "" && c.TLS.CertFile == "" {
		return dial
	}
	return func(ctx context.Context, addr string, d *net.Dialer, conf *tls.Config) (net.Conn, error) {
		if conf == was && was != nil {
			var err error
			if conf, err = c.TLS.config(); err != nil {
				return nil, fmt.Errorf("tls.%w", err)
			}
		}
		return dial(ctx, addr, d, conf)
	}
}

// sentinelAddr is the address of a Sentinel's connection, for login.
type sentinelAddr struct{ net.Addr }

// login is asked by rueidis for each new connection.
func (c Config) login(at rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
	_, sentinel := at.Address.(sentinelAddr)
	return c.loginFor(sentinel)
}

func (c Config) loginFor(sentinel bool) (login rueidis.AuthCredentials, err error) {
	field, file := "passwordFile", c.PasswordFile
	login.Username, login.Password = c.Username, c.Password.Reveal()
	if sentinel {
		field, file = "sentinelPasswordFile", c.SentinelPasswordFile
		login.Username, login.Password = c.SentinelUsername, c.SentinelPassword.Reveal()
	}
	if file != "" {
		if login.Password, err = readPassword(file); err != nil {
			err = fmt.Errorf("%s: %w", field, err)
		}
	}
	return login, err
}

// maxPassword is what a file may have: what is larger is another file.
const maxPassword = 1 << 16

func readPassword(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPassword+1))
	if err != nil {
		return "", err
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case len(data) > maxPassword:
		return "", fmt.Errorf("%q has more than %d bytes", file, maxPassword)
	case password == "":
		return "", fmt.Errorf("%q is empty", file)
	}
	return password, nil
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
