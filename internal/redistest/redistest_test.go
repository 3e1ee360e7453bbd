package redistest

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/redis/rueidis"
)

// eachMeans runs the test by every means that this machine has, or by the one that LOCKSTEP_REDISTEST names. At least
// one is needed.
func eachMeans(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	ran := false
	for how, missing := range map[means]error{
		byContainer: func() error { _, err := dockerEngine(); return err }(),
		byProcess:   func() error { _, err := findServer(); return err }(),
	} {
		forced := os.Getenv(meansVariable)
		if forced == string(byURL) {
			forced = ""
		}
		if forced == "" && missing != nil || forced != "" && forced != string(how) {
			t.Logf("not by %s: forced %q, missing: %v", how, forced, missing)
			continue
		}
		ran = true
		t.Run(string(how), func(t *testing.T) {
			t.Setenv(meansVariable, string(how))
			test(t)
		})
	}
	if !ran {
		t.Error("neither Docker nor a redis-server: nothing was tested")
	}
}

// took logs how long a start took; the numbers in the documentation come from here.
func took(t *testing.T, what string, since time.Time) {
	t.Helper()
	t.Logf("%s: %s", what, time.Since(since).Round(100*time.Microsecond))
}

func TestSingleIsShared(t *testing.T) {
	begin := time.Now()
	srv := Single(t)
	took(t, "first use, by "+srv.Means(), begin)
	if again := Single(t); again != srv {
		t.Error("Single returned two servers")
	}
	key := t.Name()
	srv.Do(t, "SET", key, "value")
	t.Cleanup(func() { srv.Do(t, "DEL", key) })
	if got, err := srv.Do(t, "GET", key).ToString(); got != "value" {
		t.Errorf("GET = %q, %v", got, err)
	}
	if err := srv.Do(t, "GET", key+" missing").Error(); !rueidis.IsRedisNil(err) {
		t.Errorf("GET of a missing key: %v", err)
	}
}

func TestStart(t *testing.T) {
	eachMeans(t, func(t *testing.T) {
		begin := time.Now()
		srv := Start(t)
		took(t, "start", begin)
		if !srv.Owned() || !strings.Contains(srv.URL(), srv.Addr()) || srv.Version(t) == "" {
			t.Errorf("owned %v, URL %s, address %s, version %q", srv.Owned(), srv.URL(), srv.Addr(), srv.Version(t))
		}
		before := srv.CommandStats(t)
		srv.Do(t, "SET", "a", "1")
		srv.Do(t, "EVAL", "return redis.call('INCR', KEYS[1])", "1", "a")
		diff := srv.CommandStats(t).Since(before)
		for _, command := range []string{"set", "eval", "incr"} {
			if diff[command] != 1 {
				t.Errorf("%d calls of %s, want 1; all: %v", diff[command], command, diff)
			}
		}
		srv.Flush(t)
		if n, err := srv.Do(t, "DBSIZE").AsInt64(); n != 0 || err != nil {
			t.Errorf("%d keys after Flush, %v", n, err)
		}
	})
}

func TestOptions(t *testing.T) {
	eachMeans(t, func(t *testing.T) {
		srv := Start(t, Password("p@ss:word"), TLS(),
			File("users.acl", []byte("user default on >p@ss:word ~* &* +@all\nuser alice on >wonder ~* &* +@all\n")),
			Args("--aclfile", "users.acl", "--rename-command", "FLUSHALL", ""))
		if err := srv.Cmd(t.Context(), "FLUSHALL").Error(); err == nil {
			t.Error("the renamed command is there")
		}
		srv.Do(t, "SET", "a", "1")

		option := srv.ClientOption()
		option.Username, option.Password, option.DisableCache = "alice", "wonder", true
		alice, err := rueidis.NewClient(option)
		if err != nil {
			t.Fatal(err)
		}
		defer alice.Close()
		if who, err := alice.Do(t.Context(), alice.B().AclWhoami().Build()).ToString(); who != "alice" {
			t.Errorf("WHOAMI = %q, %v", who, err)
		}

		parsed, err := rueidis.ParseURL(srv.URL())
		if err != nil || parsed.Password != "p@ss:word" || parsed.TLSConfig == nil {
			t.Errorf("%s: password %q, TLS %v, %v", srv.URL(), parsed.Password, parsed.TLSConfig != nil, err)
		}
		if pem, err := os.ReadFile(srv.CAFile()); err != nil || !strings.Contains(string(pem), "CERTIFICATE") {
			t.Errorf("%s: %v", srv.CAFile(), err)
		}
	})
}

func TestWithoutHELLO(t *testing.T) {
	srv := Start(t, Process(), Args("--rename-command", "HELLO", ""))
	srv.Do(t, "SET", "a", "1")
}

func TestBadArgumentQuotesTheLog(t *testing.T) {
	eachMeans(t, func(t *testing.T) {
		how := means(os.Getenv(meansVariable))
		_, err := start(t.Context(), how, spec{args: []string{"--no-such-setting", "1"}})
		if err == nil || !strings.Contains(err.Error(), "no-such-setting") {
			t.Errorf("error does not quote Redis: %v", err)
		}
	})
}

func TestKillAndRestart(t *testing.T) {
	eachMeans(t, func(t *testing.T) {
		srv := Start(t)
		addr := srv.Addr()
		srv.Do(t, "SET", "a", "1")
		srv.Kill(t)
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			c.Close()
			t.Error("a killed server's address takes connections")
		}
		begin := time.Now()
		srv.Restart(t)
		took(t, "restart", begin)
		if srv.Addr() != addr {
			t.Errorf("the address was %s and is %s", addr, srv.Addr())
		}
		if n, err := srv.Do(t, "DBSIZE").AsInt64(); n != 0 || err != nil {
			t.Errorf("%d keys after a restart, %v", n, err)
		}
	})
}

func TestPause(t *testing.T) {
	eachMeans(t, func(t *testing.T) {
		srv := Start(t)
		srv.Pause(t)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		begin := time.Now()
		if err := srv.Cmd(ctx, "PING").Error(); err == nil {
			t.Error("a paused server answered")
		} else if time.Since(begin) < 150*time.Millisecond {
			t.Errorf("a paused server refused instead of hanging: %v", err)
		}
		srv.Resume(t)
		srv.Do(t, "PING")

		srv.Pause(t)
		srv.Kill(t) // of a paused one
		srv.Restart(t)
	})
}

// A test that ends with a broken shared server must not break the next one.
func TestSharedServerIsPutRight(t *testing.T) {
	eachMeans(t, func(t *testing.T) {
		srv, err := start(t.Context(), means(os.Getenv(meansVariable)), spec{})
		if err != nil {
			t.Fatal(err)
		}
		defer srv.terminate()
		t.Run("kill", func(t *testing.T) { srv.Kill(t) })
		srv.Do(t, "PING")
		t.Run("pause", func(t *testing.T) { srv.Pause(t) })
		srv.Do(t, "PING")
	})
}

func TestURL(t *testing.T) {
	own := Start(t, Process())
	t.Setenv(urlVariable, own.URL()+"/3")
	srv, err := openURL(t.Context(), urlVariable)
	if err != nil {
		t.Fatal(err)
	}
	if srv.URL() != own.URL()+"/3" || srv.Addr() != own.Addr() || srv.Owned() {
		t.Errorf("URL %s, address %s, owned %v", srv.URL(), srv.Addr(), srv.Owned())
	}
	own.Do(t, "SET", "other database", "1")
	srv.Do(t, "SET", "a", "1")
	srv.Flush(t)
	if n, err := own.Do(t, "DBSIZE").AsInt64(); n != 1 || err != nil {
		t.Errorf("Flush of a URL's database left %d keys in another, want 1; %v", n, err)
	}

	own.Kill(t)
	var stop errStop
	if _, err := openURL(t.Context(), urlVariable); !errors.As(err, &stop) {
		t.Errorf("a URL that does not answer must end the search; got %v", err)
	}
}

func TestNewestImage(t *testing.T) {
	for _, c := range []struct {
		tags []string
		want string
	}{
		{nil, defaultImage},
		{[]string{"redis:7.0.15", "redis:7.4-alpine", "redis:latest", "redis:7.2"}, "redis:7.4-alpine"},
		{[]string{"redis:latest"}, "redis:latest"},
		{[]string{"redis:9", "redis:10.0"}, "redis:10.0"},
		{[]string{"example/redis:9", "redis:7.2"}, "redis:7.2"},
	} {
		if got := newestImage(c.tags); got != c.want {
			t.Errorf("newestImage(%q) = %s, want %s", c.tags, got, c.want)
		}
	}
}

// What a killed test process leaves is removed without it.
func TestKilledTestLeavesNothing(t *testing.T) {
	eachMeans(t, func(t *testing.T) {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^TestHelper$", "-test.v")
		cmd.Env = append(os.Environ(), "LOCKSTEP_REDISTEST_HELPER=hang", "TMPDIR="+dir, urlVariable+"=")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cmd.Process.Kill() }()
		var addr, session string
		for lines := bufio.NewScanner(out); addr == "" && lines.Scan(); {
			if rest, ok := strings.CutPrefix(lines.Text(), "started "); ok {
				addr, session, _ = strings.Cut(rest, " ")
			}
		}
		if addr == "" {
			t.Fatal("the helper started nothing")
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begin := time.Now()
		err = poll(ctx, "nothing is left", func() error {
			if c, err := net.Dial("tcp", addr); err == nil {
				c.Close()
				return errors.New("the server runs")
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "redistest-*")); len(left) > 0 {
				return errors.New("left: " + strings.Join(left, ", "))
			}
			if session == "" {
				return nil
			}
			e, err := dockerEngine()
			if err != nil {
				return err
			}
			list, err := e.client.ContainerList(ctx, client.ContainerListOptions{All: true,
				Filters: make(client.Filters).Add("label", sessionLabel+"="+session)})
			if err == nil && len(list.Items) > 0 {
				err = errors.New("the container is there")
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		took(t, "cleaning up after a killed process", begin)
	})
}
