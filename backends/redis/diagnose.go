package redis

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// Some mistakes in a configuration look like outages to rueidis, or like nothing at all: a server
// that waits for plain text says nothing to a TLS handshake. Where connecting fails or is slow,
// diagnose asks the addresses themselves, over connections of its own.

const (
	// slow is after how long connecting looks as if something were wrong.
	slow = 300 * time.Millisecond
	// diagnosisTimeout bounds the diagnosis. A server that takes longer is down, as far as
	// anybody can tell.
	diagnosisTimeout = 700 * time.Millisecond
)

// await waits for the outcome of connecting, or for a reason why nothing can come of it.
// connecting says that it still goes on, connected that it has succeeded all the same.
func (b *backend) await(ctx context.Context, opt rueidis.ClientOption, opened <-chan error) (connecting, connected bool, err error) {
	asking, cancel := context.WithTimeout(ctx, max(diagnosisTimeout, b.cfg.DialTimeout/2))
	defer cancel()
	suspect := time.NewTimer(slow)
	defer suspect.Stop()
	sentinel := opt.Sentinel.MasterSet != ""
	var diagnosis chan error
	begun := false
	diagnose := func() {
		if !begun {
			begun, diagnosis = true, make(chan error, 1)
			go func(to chan<- error) { to <- b.diagnose(asking, opt) }(diagnosis)
		}
	}
	if sentinel {
		diagnose() // it also asks for what only a failover would show
	}
	var outcome, wrong error
	connecting = true
	for connecting || diagnosis != nil {
		select {
		case outcome = <-opened:
			opened, connecting, connected = nil, false, outcome == nil
			if connected && !sentinel || errors.Is(outcome, driver.ErrInvalidConfig) {
				return false, connected, outcome
			}
			diagnose()
		case <-suspect.C:
			diagnose()
		case wrong = <-diagnosis:
			diagnosis = nil
			var unknown *unknownSet
			if wrong != nil && !errors.As(wrong, &unknown) {
				return connecting, connected, wrong
			}
		case <-ctx.Done():
			return connecting, connected, fmt.Errorf("%w: %w", driver.ErrUnavailable, ctx.Err())
		}
	}
	if outcome != nil && wrong != nil {
		return false, false, wrong
	}
	return false, connected, outcome
}

// unknownSet is a Sentinel that does not know the masterSet. Another one may.
type unknownSet struct{ *driver.FieldError }

func (e *unknownSet) Unwrap() error { return e.FieldError }

// diagnose says what is wrong with the configuration, if the servers tell, or nil.
func (b *backend) diagnose(ctx context.Context, opt rueidis.ClientOption) error {
	answers := make([]error, len(opt.InitAddress))
	answered := make(chan int, len(answers))
	for i, addr := range opt.InitAddress {
		go func() {
			answers[i] = b.diagnoseOne(ctx, opt, addr)
			answered <- i
		}()
	}
	var unknown error
	for range answers {
		switch err := answers[<-answered].(type) {
		case nil:
		case *unknownSet:
			unknown = err
		default:
			return err
		}
	}
	return unknown
}

func (b *backend) diagnoseOne(ctx context.Context, opt rueidis.ClientOption, addr string) error {
	sentinel := opt.Sentinel.MasterSet != ""
	dialer, conf := &opt.Dialer, opt.TLSConfig
	if sentinel {
		dialer, conf = &opt.Sentinel.Dialer, opt.Sentinel.TLSConfig
	}
	dial := func(conf *tls.Config) (*asker, error) {
		conn, err := opt.DialCtxFn(ctx, addr, dialer, conf)
		if err != nil {
			return nil, err
		}
		return newAsker(ctx, conn), nil
	}
	if !strings.HasPrefix(addr, "/") {
		first, err := firstByte(dial)
		plain := err == nil && (first == '+' || first == '-')
		switch {
		case conf != nil && plain:
			return driver.Invalid("tls", "%v answers without TLS; leave tls out (redis:// rather than rediss://)", addr).With("addrs")
		case conf == nil && !plain && speaksTLS(dial):
			return driver.Invalid("tls", "%v speaks TLS; set tls (rediss:// rather than redis://)", addr).With("addrs")
		}
	}
	a, err := dial(conf)
	if err != nil {
		return nil // down, or a certificate that is not trusted: connecting says so itself
	}
	defer a.close()
	if sentinel {
		return b.askSentinel(a, opt, addr)
	}
	return b.askServer(a, opt, addr)
}

func (b *backend) askServer(a *asker, opt rueidis.ClientOption, addr string) error {
	if user, password, err := credentials(opt, false, a.conn); err != nil || a.login(user, password) != nil {
		return nil
	}
	if role, _ := a.ask("ROLE"); len(role) > 0 && role[0] == "sentinel" {
		return driver.Invalid("masterSet", "it is empty, but %v is a Sentinel; give the name under which it watches the master", addr).With("addrs")
	}
	_, err := a.ask("CLUSTER", "INFO")
	if len(opt.InitAddress) > 1 && err != nil && strings.Contains(err.Error(), "cluster support disabled") {
		return driver.Invalid("addrs", "several addresses mean a Cluster, and %v is none; give one address, or masterSet if these are Sentinels", addr)
	}
	return nil
}

// askSentinel asks for all that rueidis asks a Sentinel for. Without the messages of a failover
// a client would stay with the old master, which goes on granting locks for seconds.
func (b *backend) askSentinel(a *asker, opt rueidis.ClientOption, addr string) error {
	set := opt.Sentinel.MasterSet
	user, password, err := credentials(opt, true, a.conn)
	if err != nil {
		return driver.Invalid("sentinelPasswordFile", "%s", b.secrets.words(err.Error()))
	}
	var said serverError
	if err := a.login(user, password); errors.As(err, &said) {
		return driver.Invalid("sentinelPassword", "the Sentinel %v refused the login: %s", addr, rightsText{b.secrets.words(string(said))}).With("sentinelUsername")
	}
	lacksRight := func(right string) error {
		return driver.Invalid("sentinelUsername", "its ACL on the Sentinel %v lacks %s", addr, rightsText{right})
	}
	for _, question := range [][]string{
		{"SENTINEL", "GET-MASTER-ADDR-BY-NAME", set},
		{"SENTINEL", "SENTINELS", set},
		{"SUBSCRIBE", "+sentinel", "+slave", "-sdown", "+sdown", "+switch-master", "+reboot"},
	} {
		reply, err := a.ask(question...)
		if err == nil {
			if reply == nil {
				return &unknownSet{driver.Invalid("masterSet", "the Sentinel %v watches no master named %v", addr, set)}
			}
			continue
		}
		if !errors.As(err, &said) {
			return nil // down
		}
		text := clean(string(said))
		switch {
		case strings.Contains(text, "No such master"):
			return &unknownSet{driver.Invalid("masterSet", "the Sentinel %v watches no master named %v", addr, set)}
		case meaningOf(text) == unsupported && question[0] == "SENTINEL":
			return driver.Invalid("masterSet", "%v, but %v is no Sentinel (their usual port is 26379)", set, addr).With("addrs")
		case meaningOf(text) == loggedOut:
			return driver.Invalid("sentinelPassword", "the Sentinel %v asks for one", addr)
		case meaningOf(text) == forbidden && strings.Contains(text, "channel"):
			return lacksRight("&* (the channels)")
		case meaningOf(text) == forbidden && question[0] == "SUBSCRIBE":
			return lacksRight("+subscribe")
		case meaningOf(text) == forbidden:
			return lacksRight("+" + strings.ToLower(question[0]+"|"+question[1]))
		}
	}
	return nil
}

// credentials are those that rueidis will use.
func credentials(opt rueidis.ClientOption, sentinel bool, conn net.Conn) (user, password string, err error) {
	if opt.AuthCredentialsFn != nil {
		at := conn.RemoteAddr()
		if sentinel {
			at = sentinelAddr{at}
		}
		c, err := opt.AuthCredentialsFn(rueidis.AuthCredentialsContext{Address: at})
		return c.Username, c.Password, err
	}
	if sentinel {
		return opt.Sentinel.Username, opt.Sentinel.Password, nil
	}
	return opt.Username, opt.Password, nil
}

// firstByte is what the address answers plain text with.
func firstByte(dial func(*tls.Config) (*asker, error)) (byte, error) {
	a, err := dial(nil)
	if err != nil {
		return 0, err
	}
	defer a.close()
	if _, err := io.WriteString(a.conn, "PING\r\n"); err != nil {
		return 0, err
	}
	return a.r.ReadByte()
}

// speaksTLS says whether the address answers a TLS handshake, be it by refusing it.
func speaksTLS(dial func(*tls.Config) (*asker, error)) bool {
	a, err := dial(nil)
	if err != nil {
		return false
	}
	defer a.close()
	var alert tls.AlertError
	var op *net.OpError
	err = tls.Client(a.conn, &tls.Config{InsecureSkipVerify: true}).Handshake() // nothing is sent over it
	return err == nil || errors.As(err, &alert) || errors.As(err, &op) && op.Op == "remote error"
}

// asker speaks RESP 2 on a connection of its own. rueidis would hide what it is for: a client of
// its own begins with commands that the wrong kind of server refuses.
type asker struct {
	conn net.Conn
	r    *bufio.Reader
	stop func() bool
}

func newAsker(ctx context.Context, conn net.Conn) *asker {
	return &asker{conn, bufio.NewReader(conn), context.AfterFunc(ctx, func() { conn.Close() })}
}

func (a *asker) close() {
	a.stop()
	a.conn.Close()
}

// serverError is an error reply.
type serverError string

func (e serverError) Error() string { return string(e) }

func (a *asker) login(user, password string) (err error) {
	switch {
	case password == "" && user == "":
	case user == "":
		_, err = a.ask("AUTH", password)
	default:
		_, err = a.ask("AUTH", user, password)
	}
	return err
}

// ask sends one command. The reply's strings are in order, flat; a null reply is nil.
func (a *asker) ask(args ...string) ([]string, error) {
	if _, err := a.conn.Write(appendCommand(nil, args)); err != nil {
		return nil, err
	}
	return a.read(0)
}

func appendCommand(b []byte, args []string) []byte {
	b = fmt.Appendf(b, "*%d\r\n", len(args))
	for _, arg := range args {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	return b
}

// What a diagnosis reads at most: its questions have short answers, but who answers may be
// anybody.
const (
	maxReplyLine  = 1 << 12
	maxReplyBytes = 1 << 20
	maxReplyDepth = 4
)

var errNotRESP = errors.New("the answer is not Redis's protocol")

func (a *asker) read(depth int) ([]string, error) {
	line, err := a.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < 3 || len(line) > maxReplyLine || depth > maxReplyDepth {
		return nil, errNotRESP
	}
	kind, rest := line[0], strings.TrimRight(string(line[1:]), "\r\n")
	switch kind {
	case '+', ':':
		return []string{rest}, nil
	case '-':
		return nil, serverError(rest)
	}
	n, err := strconv.Atoi(rest)
	if err != nil || n < -1 || n > maxReplyBytes || kind != '$' && kind != '*' {
		return nil, errNotRESP
	}
	if n == -1 {
		return nil, nil
	}
	if kind == '$' {
		data := make([]byte, n+2)
		_, err := io.ReadFull(a.r, data)
		return []string{string(data[:n])}, err
	}
	all := []string{}
	for range n {
		part, err := a.read(depth + 1)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	return all, nil
}
