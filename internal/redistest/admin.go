package redistest

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// adminTimeout bounds one administrator's command. It is short enough for a test that forgot that its server is
// paused, and long enough for a slow machine.
const adminTimeout = 10 * time.Second

// Do sends one command, as an administrator would, and returns the reply: srv.Do(t, "GET", key).ToString().
// An error reply or none fails the test; a null reply does not (rueidis.IsRedisNil tells).
//
// Each call opens a connection and closes it again. A connection that stayed would be a goroutine in every test that
// counts goroutines, a line in every CLIENT LIST, and a corpse after every Kill.
func (s *Server) Do(tb testing.TB, args ...string) rueidis.RedisResult {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	result := s.Cmd(ctx, args...)
	if err := result.Error(); err != nil && !rueidis.IsRedisNil(err) {
		tb.Fatalf("redistest: %s on %s: %v", strings.Join(args, " "), s.addr, err)
	}
	return result
}

// Cmd is Do for tests that expect an error, or have a deadline of their own.
func (s *Server) Cmd(ctx context.Context, args ...string) rueidis.RedisResult {
	option := s.ClientOption()
	option.ForceSingleClient = true
	option.DisableCache = true
	option.DisableRetry = true
	option.ClientSetInfo = rueidis.DisableClientSetInfo
	option.Dialer.Timeout = time.Second
	if deadline, ok := ctx.Deadline(); ok {
		option.ConnWriteTimeout = max(time.Until(deadline), time.Millisecond)
	}
	client, err := rueidis.NewClient(option)
	if client == nil || err != nil {
		if client != nil {
			client.Close()
		}
		return rueidis.NewErrorResult(err)
	}
	defer client.Close()
	return client.Do(ctx, client.B().Arbitrary(args...).Build())
}

// Version returns the server's version, such as "7.0.15".
func (s *Server) Version(tb testing.TB) string {
	tb.Helper()
	return s.Info(tb, "server")["redis_version"]
}

// Info returns one section of INFO, field by field.
func (s *Server) Info(tb testing.TB, section string) map[string]string {
	tb.Helper()
	text, err := s.Do(tb, "INFO", section).ToString()
	if err != nil {
		tb.Fatalf("redistest: INFO %s on %s: %v", section, s.addr, err)
	}
	return parseInfo(text)
}

func parseInfo(text string) map[string]string {
	fields := make(map[string]string)
	text = strings.TrimPrefix(text, "txt:") // RESP3 says of a verbatim string what format it has
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields
}

// Stats counts calls by command, in Redis's spelling: "evalsha", "client|tracking".
type Stats map[string]int64

// CommandStats returns how often the server has carried out each command since it started, commands that a script
// calls included. The calls of [Server.Do] and of CommandStats itself count too: each is one hello, one ping and the
// command (here info).
func (s *Server) CommandStats(tb testing.TB) Stats {
	tb.Helper()
	stats := make(Stats)
	for name, value := range s.Info(tb, "commandstats") {
		command, ok := strings.CutPrefix(name, "cmdstat_")
		if !ok {
			continue
		}
		calls, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
		n, err := strconv.ParseInt(calls, 10, 64)
		if err != nil {
			tb.Fatalf("redistest: INFO commandstats on %s: %s:%s: %v", s.addr, name, value, err)
		}
		stats[command] = n
	}
	return stats
}

// Since returns what was called between before and s, and leaves out what was not.
func (s Stats) Since(before Stats) Stats {
	diff := make(Stats)
	for command, n := range s {
		if d := n - before[command]; d != 0 {
			diff[command] = d
		}
	}
	return diff
}

// Flush removes all keys: of all databases of a server of our own, of the URL's database only where one was given.
func (s *Server) Flush(tb testing.TB) {
	tb.Helper()
	if s.Owned() {
		s.Do(tb, "FLUSHALL", "SYNC")
	} else {
		s.Do(tb, "FLUSHDB", "SYNC")
	}
}
