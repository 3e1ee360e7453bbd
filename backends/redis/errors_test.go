package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

const sha = "b7ffed3c959b3e98c32c7e322f8cd63c695de369"

// What servers say, as they were heard to: Redis 5.0.14, 6.2.14, 7.0.15 and 7.4.1, Valkey 8.0.1.
// "old" is how 5.0 and 6.2 report what a script met, "new" how the others do.
func TestReplies(t *testing.T) {
	old := func(text string) string {
		return "ERR Error running script (call to f_" + sha + "): @user_script:1: " + text
	}
	older := func(text string) string { return old("@user_script: 1: " + text) }
	newer := func(text string) string { return text + " script: " + sha + ", on @user_script:1." }

	const (
		oom      = "OOM command not allowed when used memory > 'maxmemory'."
		readOnly = "READONLY You can't write against a read only replica."
		down     = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."
		replicas = "NOREPLICAS Not enough good replicas to write."
		misconf  = "MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on disk. Commands that may modify the data set are disabled, because this instance is configured to report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB error."
		wrong    = "WRONGTYPE Operation against a key holding the wrong kind of value"
	)
	for _, tt := range []struct {
		server, reply string
		want          meaning
		text          string // what is left of it
	}{
		{"all", oom, refused, oom},
		{"5.0", older("-" + oom + "   "), refused, oom},
		{"6.2", older("-" + oom), refused, oom},
		{"6.2, by pcall", "@user_script: 18: -" + oom, refused, oom},
		{"7.0, 7.4, Valkey", newer(oom), refused, oom},
		{"all", readOnly, wrongPeer, readOnly},
		{"5.0, 6.2", older("-" + readOnly), wrongPeer, readOnly},
		{"7.0, 7.4, Valkey", newer(readOnly), wrongPeer, readOnly},
		{"all", down, wrongPeer, down},
		{"Valkey, to who asked for it", "REDIRECT 127.0.0.1:6379", wrongPeer, ""},
		{"all", "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)", wrongPeer, ""},
		{"6.2", older("-" + replicas), refused, replicas},
		{"7.0, 7.4, Valkey", newer(replicas), refused, replicas},
		{"5.0, 6.2", misconf, refused, misconf},
		{"5.0, 6.2", older("-" + misconf), refused, misconf},
		{"7.4", "MISCONF Errors writing to the AOF file: No space left on device", refused, ""},
		{"Redis", "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", refused, ""},
		{"Valkey", "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", refused, ""},
		{"7.0", "BUSY Redis is busy running a module command.", refused, ""},
		{"Redis", "LOADING Redis is loading the dataset in memory", refused, ""},
		{"Valkey", "LOADING Valkey is loading the dataset in memory", refused, ""},
		{"all", "CLUSTERDOWN The cluster is down", refused, ""},
		{"all", "CLUSTERDOWN Hash slot not served", refused, ""},
		{"all", "TRYAGAIN Multiple keys request during rehashing of slot", refused, ""},
		{"all", "EXECABORT Transaction discarded because of previous errors.", refused, ""},
		{"Redis", "NOSCRIPT No matching script. Please use EVAL.", refused, ""},
		{"all", "ERR max number of clients reached", refused, ""},
		{"6.2", "NOPERM this user has no permissions to run the 'set' command or its subcommand", forbidden, ""},
		{"7.0", "NOPERM this user has no permissions to run the 'set' command", forbidden, ""},
		{"7.4, Valkey", "NOPERM User lim has no permissions to run the 'set' command", forbidden, ""},
		{"6.2, 7.0", "NOPERM this user has no permissions to access one of the keys used as arguments", forbidden, ""},
		{"7.4, Valkey", "NOPERM No permissions to access a key", forbidden, ""},
		{"6.2", older("The user executing the script can't run this command or subcommand"), forbidden, "The user executing the script can't run this command or subcommand"},
		{"6.2", older("The user executing the script can't access at least one of the keys mentioned in the command arguments"), forbidden, ""},
		{"7.0", newer("ERR The user executing the script can't run this command or subcommand"), forbidden, "ERR The user executing the script can't run this command or subcommand"},
		{"7.4, Valkey", newer("ERR ACL failure in script: User lim has no permissions to run the 'set' command"), forbidden, "ERR ACL failure in script: User lim has no permissions to run the 'set' command"},
		{"7.4, Valkey", newer("ERR ACL failure in script: No permissions to access a key"), forbidden, ""},
		{"all", "NOAUTH Authentication required.", loggedOut, ""},
		{"6.2 and up", "WRONGPASS invalid username-password pair or user is disabled.", loggedOut, ""},
		{"5.0", "ERR invalid password", loggedOut, ""},
		{"5.0", "ERR Client sent AUTH, but no password is set", loggedOut, ""},
		{"6.2 and up", "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?", loggedOut, ""},
		{"5.0, 6.2", old(wrong + " "), foreign, wrong},
		{"7.0, 7.4, Valkey", newer(wrong), foreign, wrong},
		{"all", "LOCKSTEP the token counter is not a number", foreign, ""},
		{"all", "TAKENBACK this attempt was given up", undone, ""},
		{"5.0, 6.2", "ERR unknown command `nosuch`, with args beginning with: `user`, `pass`, ", unsupported, "ERR unknown command `nosuch`"},
		{"7.0, 7.4, Valkey", "ERR unknown command 'nosuch', with args beginning with: 'user' 'pass' ", unsupported, "ERR unknown command 'nosuch'"},
		{"5.0, 6.2", older("Unknown Redis command called from Lua script"), unsupported, ""},
		{"7.0, 7.4", newer("ERR Unknown Redis command called from script"), unsupported, ""},
		{"Valkey", newer("ERR Unknown command called from script"), unsupported, ""},
		{"all", "ERR DB index is out of range", badDatabase, ""},
		{"a proxy", "ERR upstream failure", unclear, ""},
		{"7.0, in a slot that moves", newer("ERR Script attempted to access a non local key in a cluster node"), unclear, ""},
	} {
		s := &secrets{}
		s.add("user", "pass", "OOM", "a")
		err := s.reply(t.Context(), tt.reply, false)
		if got := meaningOf(clean(tt.reply)); got != tt.want {
			t.Errorf("%s: %q means %d, want %d", tt.server, tt.reply, got, tt.want)
		}
		sure := map[meaning]error{unclear: driver.ErrUnavailable, wrongPeer: driver.ErrWrongPeer, unsupported: driver.ErrUnsupported, badDatabase: driver.ErrInvalidConfig, undone: driver.ErrLost}[tt.want]
		if sure == nil {
			sure = driver.ErrRefused
		}
		if !errors.Is(err, sure) || tt.want == unclear && errors.Is(err, driver.ErrRefused) {
			t.Errorf("%s: %q is %v, want one that matches %q", tt.server, tt.reply, err, sure)
		}
		if text := clean(tt.reply); tt.text != "" && text != tt.text {
			t.Errorf("%s: %q reads %q, want %q", tt.server, tt.reply, text, tt.text)
		}
		for _, part := range []string{"user_script", sha[:8], "\n", "'pass'", "OOM", "  "} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q is %q, with %q in it", tt.server, tt.reply, err, part)
			}
		}
	}
}

// At Open the same is a mistake in the configuration.
func TestRepliesAtOpen(t *testing.T) {
	for reply, want := range map[string]string{
		"NOAUTH Authentication required.":                               "password",
		"WRONGPASS invalid username-password pair or user is disabled.": "username, password",
		"NOPERM User lim has no permissions to run the 'role' command":  "username",
		"ERR DB index is out of range":                                  "db",
	} {
		err := new(secrets).reply(t.Context(), reply, true)
		if !errors.Is(err, driver.ErrInvalidConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want ErrInvalidConfig that names %s", reply, err, want)
		}
	}
	if err := new(secrets).reply(t.Context(), "OOM command not allowed", true); !errors.Is(err, driver.ErrRefused) {
		t.Errorf("%v; want ErrRefused: a full server is no mistake in the configuration", err)
	}
}

// Errors without a reply: the caller's ctx is matched, and nobody else's.
func TestClassifyWithoutReply(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	s := &secrets{}
	s.add("hunter2")
	for _, tt := range []struct {
		ctx       context.Context
		err       error
		is, isNot []error
	}{
		{t.Context(), io.EOF, []error{driver.ErrUnavailable, io.EOF}, []error{driver.ErrRefused}},
		{ended, io.EOF, []error{driver.ErrUnavailable, context.Canceled}, nil},
		{ended, context.Canceled, []error{driver.ErrUnavailable, context.Canceled}, nil},
		{t.Context(), fmt.Errorf("dial: %w", context.DeadlineExceeded), []error{driver.ErrUnavailable}, []error{context.DeadlineExceeded}},
		{t.Context(), os.ErrDeadlineExceeded, []error{driver.ErrUnavailable}, []error{context.DeadlineExceeded}},
		{t.Context(), fmt.Errorf("not sent: %w", driver.ErrRefused), []error{driver.ErrRefused, driver.ErrUnavailable}, nil},
		{t.Context(), fmt.Errorf("NOPERM: [CLIENT TRACKING]\n%w", rueidis.ErrNoCache), []error{driver.ErrRefused}, nil},
		{t.Context(), errors.New("a\nline with hunter2 and \x1b[2J"), []error{driver.ErrUnavailable}, nil},
	} {
		err := s.classify(tt.ctx, tt.err, false)
		for _, is := range tt.is {
			if !errors.Is(err, is) {
				t.Errorf("%q is %q, which does not match %q", tt.err, err, is)
			}
		}
		for _, is := range tt.isNot {
			if errors.Is(err, is) {
				t.Errorf("%q is %q, which matches %q", tt.err, err, is)
			}
		}
		if text := err.Error(); strings.ContainsAny(text, "\n\x1b") || strings.Contains(text, "hunter2") {
			t.Errorf("%q", text)
		}
	}
}

func TestSecretsAreHidden(t *testing.T) {
	s := &secrets{}
	s.add("", "p", "long secret", "long secret and more", "quo\"te\n")
	for text, want := range map[string]string{
		"p and op, p":                     "(hidden) and op, (hidden)",
		"with 'long secret and more' end": "with '(hidden)' end",
		"long secret":                     "(hidden)",
		`it was "quo\"te\n"`:              `it was "(hidden)"`,
	} {
		if got := s.words(text); got != want {
			t.Errorf("%q reads %q, want %q", text, got, want)
		}
	}
	for i := range 2 * maxSecrets {
		s.add(fmt.Sprint("rotated-", i))
	}
	if len(s.all) != maxSecrets || strings.Contains(s.words(fmt.Sprint("rotated-", 2*maxSecrets-1)), "rotated") {
		t.Errorf("%d secrets are remembered: %q", len(s.all), s.all)
	}
}

// No text that a server sends brings a secret out, or a second line.
func FuzzWords(f *testing.F) {
	f.Add("ERR unknown command 'AUTH', with args beginning with: 'u' 'hunter2-hunter2'")
	f.Add("ERR Error running script (call to f_" + sha + "): @user_script:1: -hunter2-hunter2")
	f.Add("-\x1b]0;\n\r\u2028")
	s := &secrets{}
	s.add(secret)
	f.Fuzz(func(t *testing.T, reply string) {
		for _, text := range []string{reply, reply + secret, secret + reply} {
			for _, opening := range []bool{true, false} {
				got := s.reply(t.Context(), text, opening).Error()
				if strings.Contains(got, secret) || strings.ContainsAny(got, "\r\n\x1b\u2028") {
					t.Errorf("%q gives %q", text, got)
				}
			}
		}
	})
}
