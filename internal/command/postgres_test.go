//go:build unix

package command

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-go/lockstep/internal/pgtest"
)

// Everything works on PostgreSQL as it does on Redis.
func TestOnPostgres(t *testing.T) {
	t.Parallel()
	srv := pgtest.Single(t)
	url, key := srv.URL(srv.Database(t)), newKey()
	p := start(t, url, sh(key, "trap 'echo term; exit 0' TERM; echo $LOCKSTEP_TOKEN; while :; do sleep 0.02; done", "--note", hostile))
	token := p.line()
	start(t, url, sh(key, "", "--no-wait")).exits(121)
	if h := inspect(t, url, 0, key); fmt.Sprint(h.Token) != token || h.Note == "" || h.Identity == "" {
		t.Errorf("got %+v", h)
	}
	w := start(t, url, []string{"watch", "--json", "--interval", "20ms"})
	if h := w.hold(); h.Event != "held" || h.Key != key {
		t.Errorf("got %+v", h)
	}
	if out := output(t, url, 0, "ls", "command/"); !strings.Contains(out, key) || strings.ContainsAny(out, "\x1b\r") {
		t.Errorf("got %q", out)
	}
	output(t, url, 1, "break", key, "--token", "17", "--yes")
	output(t, url, 0, "break", key, "--token", token, "--yes")
	if got := p.line(); got != "term" {
		t.Errorf("got %q", got)
	}
	p.exits(120)
	if h := w.hold(); h.Event != "released" || h.Key != key {
		t.Errorf("got %+v", h)
	}
	start(t, url, sh(key, "exit 7", "--ttl", "1s")).exits(7)
	start(t, url, sh(key, "", "--once-per", "a")).exits(0)
	start(t, url, sh(key, "", "--once-per", "a", "--skipped", "9")).exits(9)
	inspect(t, url, 1, key)
}
