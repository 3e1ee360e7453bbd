package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/driver/keeper"
)

// attendant is the one connection of a client outside of the pool: it listens for what
// becomes of keys, and between two notifications renews the sessions, all of them in one
// round trip, and asks whether holds still stand that may have been changed.
//
// A renewal on a connection of the pool would wait for one behind whoever uses the pool,
// which can take longer than a session lasts.
type attendant struct {
	b *backend

	mu    sync.Mutex
	jobs  []*job
	stop  context.CancelFunc // ends the waiting for notifications
	ready bool               // there is a connection
	again bool               // it shall be made anew
	used  time.Time          // when it last had an answer
	conn  *pgx.Conn          // of run's goroutine alone, but for the first
	tries int                // since a connection lasted; of run's goroutine alone
}

// job is something to ask on the connection.
type job struct {
	do   func(context.Context, *pgconn.PgConn) error
	done chan error
}

func newAttendant(b *backend) *attendant { return &attendant{b: b} }

// begin takes a connection, in one round trip: from afar, each takes its part of what is left
// of the sessions. So nothing is prepared either. Where anew is set, a server that takes no writes is
// refused. To open on one is allowed: who looks at what is held need not write.
func (a *attendant) begin(ctx context.Context, conn *pgx.Conn, anew bool) error {
	sql := askReadOnly + ";" + a.b.names.ask()
	if a.b.listens {
		sql = "LISTEN " + pgx.Identifier{a.b.names.channel}.Sanitize() + ";" + sql
	}
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return err
	}
	results = results[len(results)-2:]
	for _, r := range results {
		if len(r.Rows) != 1 || len(r.Rows[0]) != 1 {
			return errReply
		}
	}
	if anew && string(results[0].Rows[0][0]) == "t" {
		return driver.ErrWrongPeer
	}
	if !a.b.names.current(string(results[1].Rows[0][0])) {
		if err := a.b.create(ctx, conn); err != nil {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conn, a.ready, a.again, a.used = conn, true, false, time.Now()
	return nil
}

// heard is called while the connection is being read.
func (a *attendant) heard(_ *pgconn.PgConn, n *pgconn.Notification) {
	if n.Channel == a.b.names.channel {
		a.b.watched.announced(n.Payload)
	}
}

// ask runs do on the connection. It does not wait for one.
func (a *attendant) ask(ctx context.Context, do func(context.Context, *pgconn.PgConn) error) error {
	j := &job{do: do, done: make(chan error, 1)}
	a.mu.Lock()
	if !a.ready {
		a.mu.Unlock()
		return &notSent{errNotConnected}
	}
	a.jobs = append(a.jobs, j)
	a.interrupt()
	a.mu.Unlock()
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errNotConnected = errors.New("the connection is being made anew")

// interrupt ends the waiting for notifications. The mutex is held.
func (a *attendant) interrupt() {
	if a.stop != nil {
		a.stop()
	}
}

// poke has run look at what there is to do.
func (a *attendant) poke() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.interrupt()
}

// reconnect has the connection made anew.
func (a *attendant) reconnect() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.again = true
	a.interrupt()
}

// pollEvery is how often keys that somebody waits for are looked at where nothing is
// announced: often enough for Granularity.
const pollEvery = 20 * time.Millisecond

func (a *attendant) run() {
	defer a.b.background.Done()
	for a.b.ctx.Err() == nil {
		began := time.Now()
		err := a.attend()
		a.mu.Lock()
		a.ready = false
		jobs := a.jobs
		a.jobs = nil
		a.mu.Unlock()
		for _, j := range jobs {
			j.done <- &notSent{errNotConnected}
		}
		closeSoon(a.conn)
		if wrongPeer(err) && a.b.ours {
			a.b.pool.Reset()
		}
		if time.Since(began) >= lasting {
			a.tries = 0
		}
		a.connect()
	}
	closeConn(a.conn)
}

// closeSoon does not wait: a server that is silent would keep the next connection waiting.
func closeSoon(conn *pgx.Conn) {
	if !conn.IsClosed() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = conn.Close(ctx)
	}
}

// lasting is how long a connection works at least that is made anew at once. One that is given up sooner
// counts as one that could not be made: where each is given up at the first request, as by a server that
// answers and takes no writes, making them would be all that this client and its server do.
const lasting = 100 * time.Millisecond

// connect makes the connection anew, for as long as it takes. Nobody knows what was announced
// meanwhile: whoever waits is woken, the sessions are renewed, and all holds looked at.
func (a *attendant) connect() {
	b := a.b
	for ; b.ctx.Err() == nil; a.tries++ {
		if a.tries > 0 {
			timer := time.NewTimer(min(time.Duration(a.tries)*10*time.Millisecond, 200*time.Millisecond))
			select {
			case <-timer.C:
			case <-b.ctx.Done():
				timer.Stop()
				return
			}
		}
		// One time for all hosts together would be used up by the first that is silent, each time anew.
		conn, err := b.dialOne(b.ctx)
		if err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(b.ctx, b.dial.ConnectTimeout)
		err = a.begin(ctx, conn, true)
		cancel()
		if err != nil {
			closeSoon(conn)
			continue
		}
		a.tries++ // unless it lasts
		b.sessions.Check()
		b.watched.missed()
		return
	}
}

// attend serves the connection until it breaks.
func (a *attendant) attend() error {
	b := a.b
	for {
		a.mu.Lock()
		jobs := a.jobs
		a.jobs = nil
		if a.again {
			a.mu.Unlock()
			for _, j := range jobs {
				j.done <- &notSent{errNotConnected}
			}
			return nil
		}
		wait, stop := context.WithTimeout(b.ctx, a.patience())
		a.stop = stop
		if len(jobs) > 0 {
			stop()
		}
		a.mu.Unlock()

		var err error
		for i, j := range jobs {
			if err != nil {
				j.done <- &notSent{errNotConnected}
				continue
			}
			err = a.answer(jobs[i])
		}
		if err == nil && len(jobs) == 0 {
			err = a.chores()
		}
		if err == nil && b.ctx.Err() == nil {
			err = a.listen(wait)
		}
		stop()
		if b.ctx.Err() != nil || err != nil || a.conn.IsClosed() {
			return err
		}
	}
}

// patience is for how long there is nothing to do but to listen.
func (a *attendant) patience() time.Duration {
	rest := time.Until(a.used.Add(a.b.config.Validity / 3))
	if !a.b.listens && a.b.watched.waiting() {
		rest = min(rest, pollEvery)
	}
	if d, ok := a.b.watched.unmarked(time.Now()); ok {
		rest = min(rest, d)
	}
	return max(rest, 0)
}

// answer does one job. The error is that of a connection that is of no use any more.
func (a *attendant) answer(j *job) error {
	// Not the time of who asks, which has begun while something else was being asked: for a
	// connection that was given up because of that there is no time left.
	ctx, cancel := context.WithTimeout(a.b.ctx, a.b.config.Validity/3)
	defer cancel()
	err := j.do(ctx, a.conn.PgConn())
	if err == nil {
		a.used = time.Now()
	}
	j.done <- err
	if a.conn.IsClosed() || wrongPeer(err) {
		if err == nil {
			err = errNotConnected
		}
		return err
	}
	return nil
}

// listen waits for notifications, which heard gets.
func (a *attendant) listen(ctx context.Context) error {
	if !a.b.listens {
		<-ctx.Done()
		return nil
	}
	if a.b.watched.due() { // read with the answer to something else, or not answered
		return nil
	}
	for {
		err := a.conn.PgConn().WaitForNotification(ctx)
		switch {
		case err == nil && a.b.watched.due():
			return nil
		case err == nil:
		case ctx.Err() != nil && !a.conn.IsClosed():
			return nil
		default:
			return err
		}
	}
}

// atOnce is how many sessions one statement renews, and how many holds it looks at. It has a third of the
// validity: all of a large client's at once could never be done in time, and would be lost together.
const atOnce = 2000

// chores are what is to be asked without anybody's waiting for it.
func (a *attendant) chores() error {
	b := a.b
	ctx, cancel := context.WithTimeout(b.ctx, b.config.Validity/3)
	defer cancel()
	asked := false
	if due := b.watched.takeDue(atOnce); len(due) > 0 {
		asked = true
		if err := a.check(ctx, due); err != nil {
			b.watched.putBack(due)
			return a.fatal(err)
		}
	}
	if keys, want := b.watched.toAsk(b.listens, time.Now()); len(keys) > 0 {
		asked = true
		if err := a.free(ctx, keys, want); err != nil {
			b.watched.unmark(keys)
			return a.fatal(err)
		}
	}
	// A connection that has died without a word is noticed by this; whatever else was asked
	// serves as well.
	if !asked && time.Since(a.used) >= b.config.Validity/3 {
		if err := a.conn.PgConn().Exec(ctx, "").Close(); err != nil {
			return a.fatal(err)
		}
	}
	if asked || time.Since(a.used) >= b.config.Validity/3 {
		a.used = time.Now()
	}
	return nil
}

// fatal is err, or nil if the connection can still be used: then what was asked is asked again
// at the next turn.
func (a *attendant) fatal(err error) error {
	if a.conn.IsClosed() || wrongPeer(err) {
		return err
	}
	if missing(err) {
		return err // connecting anew installs what is missing
	}
	pause(a.b.ctx, 16)
	return nil
}

// check asks which of the holds stand, and tells the others.
func (a *attendant) check(ctx context.Context, holds []*hold) error {
	keys, owners := make([][]byte, len(holds)), make([][]byte, len(holds))
	for i, h := range holds {
		keys[i], owners[i] = []byte(h.key), ownerBytes(h.owner)
	}
	row, err := a.b.exec(ctx, a.conn.PgConn(), "lockstep_check", [][]byte{byteas(keys), byteas(owners)})
	if err != nil {
		return err
	}
	stand, err := readBools(row[0], len(holds))
	if err != nil {
		return err
	}
	lost := make([]*hold, 0, len(holds))
	over := owners[:0]
	for i, h := range holds {
		if !stand[i] {
			lost, over = append(lost, h), append(over, owners[i])
		}
	}
	for i, cause := range a.b.causes(ctx, a.conn.PgConn(), over) {
		a.b.lose(lost[i], cause)
	}
	return nil
}

// free asks which of the keys are free, and wakes those who wait for them.
func (a *attendant) free(ctx context.Context, keys []string, want bool) error {
	all := make([][]byte, len(keys))
	for i, k := range keys {
		all[i] = []byte(k)
	}
	row, err := a.b.exec(ctx, a.conn.PgConn(), "lockstep_free", [][]byte{byteas(all), bools(want)})
	if err != nil {
		return err
	}
	free, err := readBools(row[0], len(keys))
	if err != nil {
		return err
	}
	for i, k := range keys {
		if free[i] {
			a.b.watched.wakeKey(k)
		}
	}
	return nil
}

// renew is the keeper's.
func (b *backend) renew(ctx context.Context, sessions []driver.Holder) ([]keeper.Outcome, error) {
	keys, owners := make([][]byte, len(sessions)), make([][]byte, len(sessions))
	for i, h := range sessions {
		keys[i], owners[i] = []byte(h.Key), ownerBytes(h.Owner)
	}
	params := [][]byte{byteas(keys), byteas(owners), micros(b.config.Validity)}
	outcomes := make([]keeper.Outcome, len(sessions))
	err := b.attendant.ask(ctx, func(ctx context.Context, conn *pgconn.PgConn) error {
		for again := 1; ; again++ {
			row, err := b.exec(ctx, conn, "lockstep_renew", params)
			if transient(err) && ctx.Err() == nil {
				pause(ctx, again)
				continue
			}
			if err != nil {
				return err
			}
			if err := readOutcomes(row[0], outcomes); err != nil {
				return err
			}
			var gone [][]byte
			var which []driver.Owner
			for i, o := range outcomes {
				if o == keeper.Gone {
					gone, which = append(gone, owners[i]), append(which, sessions[i].Owner)
				}
			}
			for i, cause := range b.causes(ctx, conn, gone) {
				b.sessions.Lose(which[i], cause) // before the keeper, which has no word for it
			}
			return nil
		}
	})
	if missing(err) {
		b.attendant.reconnect() // which installs what is missing
	}
	if err != nil {
		return nil, classify(context.Background(), err)
	}
	return outcomes, nil
}

func readOutcomes(data []byte, into []keeper.Outcome) error {
	array, err := readArray(data, len(into))
	if err != nil {
		return err
	}
	for i, a := range array {
		switch {
		case len(a) != 2:
			return errReply
		case a[1] == 1:
			into[i] = keeper.Renewed
		case a[1] == 0:
			into[i] = keeper.Gone
		case a[1] == 2:
			into[i] = keeper.Unknown
		default:
			return fmt.Errorf("%w: a renewal came to %d", errReply, a[1])
		}
	}
	return nil
}
