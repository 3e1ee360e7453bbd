package pgtest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Bouncer is a PgBouncer.
type Bouncer struct {
	srv  *Server
	addr string
	log  string // its file
}

// StartBouncer starts a PgBouncer in transaction mode in front of srv. It ends with the test.
func StartBouncer(tb testing.TB, srv *Server) *Bouncer {
	tb.Helper()
	path, err := exec.LookPath("pgbouncer")
	for _, p := range []string{"/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer"} {
		if _, found := os.Stat(p); err != nil && found == nil {
			path, err = p, nil
		}
	}
	if err != nil {
		tb.Fatalf("pgtest: a PgBouncer is needed: install it (Debian: apt-get install pgbouncer): %v", err)
	}
	dir, err := folder("")
	if err != nil {
		tb.Fatal(err)
	}
	port := freePort()
	config := fmt.Sprintf(`[databases]
* = host=%s port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 500
default_pool_size = 20
server_lifetime = 3600
ignore_startup_parameters = extra_float_digits
%s
`, srv.host, srv.port, port, "logfile = "+filepath.Join(dir, "log"))
	// Under auth_type any everybody is the user that the database's line names.
	config = strings.Replace(config, "* = host", "* = user=postgres host", 1)
	ini := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(ini, []byte(config), 0o644); err != nil {
		tb.Fatal(err)
	}
	cmd, err := command(dir, path, "-q", ini)
	if err == nil {
		err = startChild(cmd)
	}
	if err != nil {
		tb.Fatalf("pgtest: pgbouncer: %v", err)
	}
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
		select {
		case <-ending:
		default:
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			tb.Errorf("pgtest: the PgBouncer ended by itself: %s\n%s", cmd.ProcessState, tail(string(log)))
		}
	}()
	tb.Cleanup(func() {
		close(ending)
		_ = cmd.Process.Kill()
		<-ended
		_ = os.RemoveAll(dir)
	})
	b := &Bouncer{srv: srv, addr: fmt.Sprintf("127.0.0.1:%d", port), log: filepath.Join(dir, "log")}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := poll(ctx, "pgbouncer answers", func() error {
		conn, err := pgx.Connect(ctx, b.URL(srv.base))
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	}); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		tb.Fatalf("%v\n%s", err, tail(string(log)))
	}
	return b
}

// Addr returns host:port.
func (b *Bouncer) Addr() string { return b.addr }

// Log is what it has said so far.
func (b *Bouncer) Log(tb testing.TB) string {
	tb.Helper()
	text, err := os.ReadFile(b.log)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// URL is that of one database.
func (b *Bouncer) URL(database string) string {
	u := url.URL{Scheme: "postgres", Host: b.addr, User: url.User("postgres"), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}
