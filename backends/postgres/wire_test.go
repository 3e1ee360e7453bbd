package postgres

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// The table of docs/postgres.md.
func TestOutcomes(t *testing.T) {
	pg := func(severity, code string) error {
		return &pgconn.PgError{Severity: severity, SeverityUnlocalized: severity, Code: code, Message: "m"}
	}
	live := context.Background()
	gone, cancel := context.WithCancel(live)
	cancel()
	late := lateTimer{live, time.Now().Add(-time.Second)}
	for _, c := range []struct {
		name string
		err  error
		ctx  context.Context
		is   []error
		not  []error
	}{
		{"rolled back", pg("ERROR", "40001"), live, []error{driver.ErrRefused, driver.ErrUnavailable}, []error{driver.ErrWrongPeer}},
		{"deadlock", pg("ERROR", "40P01"), live, []error{driver.ErrRefused}, nil},
		{"disk full", pg("ERROR", "53100"), live, []error{driver.ErrRefused}, nil},
		{"statement cancelled", pg("ERROR", "57014"), live, []error{driver.ErrRefused}, nil},
		{"lock timeout", pg("ERROR", "55P03"), live, []error{driver.ErrRefused}, nil},
		{"no right", pg("ERROR", "42501"), live, []error{driver.ErrRefused}, []error{driver.ErrInvalidConfig}},
		{"no function", pg("ERROR", "42883"), live, []error{driver.ErrRefused}, nil},
		{"taken back", pg("ERROR", "LS001"), live, []error{driver.ErrLost}, []error{driver.ErrUnavailable}},
		{"read-only", pg("ERROR", "25006"), live, []error{driver.ErrWrongPeer, driver.ErrRefused, driver.ErrUnavailable}, nil},
		{"shut down", pg("FATAL", "57P01"), live, []error{driver.ErrUnavailable}, []error{driver.ErrRefused}},
		{"crashed", pg("FATAL", "57P02"), live, []error{driver.ErrUnavailable}, []error{driver.ErrRefused}},
		{"panic", pg("PANIC", "XX000"), live, []error{driver.ErrUnavailable}, []error{driver.ErrRefused}},
		{"starting up", &notSent{pg("FATAL", "57P03")}, live, []error{driver.ErrRefused}, nil},
		{"too many connections", &notSent{pg("FATAL", "53300")}, live, []error{driver.ErrRefused}, nil},
		{"a password that has changed", &notSent{pg("FATAL", "28P01")}, live, []error{driver.ErrRefused}, []error{driver.ErrInvalidConfig}},
		{"a standby, while connecting", &notSent{driver.ErrWrongPeer}, live, []error{driver.ErrWrongPeer}, nil},
		{"broken", errors.New("EOF"), live, []error{driver.ErrUnavailable}, []error{driver.ErrRefused}},
		{"our own timeout", context.DeadlineExceeded, live, []error{driver.ErrUnavailable, errTimeout}, []error{context.DeadlineExceeded, driver.ErrRefused}},
		{"the caller's", context.Canceled, gone, []error{driver.ErrUnavailable, context.Canceled}, []error{driver.ErrRefused, errTimeout}},
		{"the caller's, whatever was said", errors.New("i/o timeout"), gone, []error{driver.ErrUnavailable, context.Canceled}, nil},
		{"the caller's, whose timer is late", pg("ERROR", "LS002"), late, []error{driver.ErrRefused, context.DeadlineExceeded}, []error{errTimeout}},
		{"the caller's, before it was sent", &notSent{context.Canceled}, gone, []error{driver.ErrRefused, context.Canceled}, nil},
	} {
		got := classify(c.ctx, c.err)
		for _, is := range c.is {
			if !errors.Is(got, is) {
				t.Errorf("%s: %v is not “%v”", c.name, got, is)
			}
		}
		for _, not := range append(c.not, driver.ErrHeld, driver.ErrLost) {
			if errors.Is(got, not) && !slices.Contains(c.is, not) {
				t.Errorf("%s: %v is “%v”", c.name, got, not)
			}
		}
	}
	for _, code := range []string{"28000", "28P01", "3D000"} {
		if err := opening(live, pg("FATAL", code)); !errors.Is(err, driver.ErrInvalidConfig) {
			t.Errorf("Open: %v", err)
		}
	}
}

// An error of a connection that failed does not hand the password on, nor lose its reason.
func TestConnectErrorWithoutConfig(t *testing.T) {
	pc, err := pgconn.ParseConfig("postgres://u:opensesame@127.0.0.1:1/d?sslmode=disable") // nobody listens there
	if err != nil {
		t.Fatal(err)
	}
	_, err = pgconn.ConnectConfig(t.Context(), pc)
	if !errors.As(err, new(*pgconn.ConnectError)) || !errors.As(err, new(*net.OpError)) {
		t.Fatalf("%T: %v", err, err)
	}
	for what, got := range map[string]error{"an attempt": classify(t.Context(), &notSent{err}), "Open": opening(t.Context(), err)} {
		if errors.As(got, new(*pgconn.ConnectError)) {
			t.Errorf("%s: the error has the Config, with the password", what)
		}
		if !errors.As(got, new(*net.OpError)) || !strings.Contains(got.Error(), "user=u database=d") {
			t.Errorf("%s: %v does not say why", what, got)
		}
	}
}

// lateTimer is a ctx whose time is up, and which has not ended yet.
type lateTimer struct {
	context.Context
	deadline time.Time
}

func (c lateTimer) Deadline() (time.Time, bool) { return c.deadline, true }

func TestArrays(t *testing.T) {
	if got := byteas(nil); len(got) != 12 {
		t.Errorf("%x", got)
	}
	all := [][]byte{[]byte("a"), {}, {0, 255}}
	back, err := readArray(byteas(all), len(all))
	if err != nil || len(back) != 3 || !bytes.Equal(back[2], all[2]) || len(back[1]) != 0 {
		t.Errorf("%q, %v", back, err)
	}
	whole := byteas(all)
	for n := range whole {
		if _, err := readArray(whole[:n], len(all)); !errors.Is(err, errReply) {
			t.Errorf("%d bytes of %d: %v", n, len(whole), err)
		}
	}
	if _, err := readArray(whole, 2); err == nil {
		t.Error("three are two")
	}
}

func TestOwner(t *testing.T) {
	o := driver.Owner{Instance: [16]byte{1, 2, 3}, Seq: 1 << 60}
	if back, ok := readOwner(ownerBytes(o)); !ok || back != o {
		t.Errorf("%v", back)
	}
	if _, ok := readOwner([]byte("mine")); ok {
		t.Error("somebody else's is ours")
	}
}

func TestDoubts(t *testing.T) {
	var d doubts
	unknown, refused := driver.Owner{Seq: 1}, driver.Owner{Seq: 2}
	d.note(unknown, driver.ErrUnavailable)
	d.note(refused, driver.ErrRefused)
	d.note(refused, driver.ErrHeld)
	if !d.has(unknown) || d.has(refused) {
		t.Error("only what is unknown is in doubt")
	}
	d.mu.Lock()
	d.since[unknown] = time.Now().Add(-lateness - time.Second)
	d.swept = time.Time{}
	d.mu.Unlock()
	if d.note(refused, driver.ErrUnavailable); d.has(unknown) {
		t.Error("it is still in doubt")
	}
}
