package redis

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// meaning is what an error reply of the server says about a request.
type meaning uint8

const (
	unclear     meaning = iota // not in the table: it may have happened
	refused                    // not done; it may be another time
	wrongPeer                  // not done, and never by this server
	loggedOut                  // not done: this connection has no valid login
	forbidden                  // not done: a right is missing
	foreign                    // something other than a lock stands there
	unsupported                // the server lacks it
	badDatabase                // there are not so many databases
	undone                     // not done, nor ever: this owner was taken back
)

// meanings are the first words of error replies, or of the error that a script met.
//
// A script is refused as a whole: a server that lacks memory, replicas or a disk checks at a
// script's first write. What a right can forbid after a write, a script has to undo itself.
var meanings = map[string]meaning{
	"BUSY":        refused, // a script runs for too long
	"CLUSTERDOWN": refused,
	"CROSSSLOT":   refused,
	"EXECABORT":   refused,
	"LOADING":     refused,
	"MISCONF":     refused, // snapshots or the append-only file cannot be written
	"MOVED":       refused,
	"ASK":         refused,
	"NOREPLICAS":  refused,
	"NOSCRIPT":    refused,
	"OOM":         refused,
	"TRYAGAIN":    refused, // a slot is being migrated

	"TAKENBACK": undone, // ours: lua/takeback.lua

	"MASTERDOWN": wrongPeer, // a replica without its master
	"READONLY":   wrongPeer,
	"REDIRECT":   wrongPeer, // a Valkey replica, to clients that asked for it
	"UNBLOCKED":  wrongPeer, // became a replica while we waited

	"NOAUTH":    loggedOut,
	"WRONGPASS": loggedOut,

	"NOPERM": forbidden,

	"LOCKSTEP":  foreign, // ours: a counter that is none
	"WRONGTYPE": foreign,
}

// phrases are what begins with ERR, or with no word at all, and has to be told by its text.
var phrases = []struct {
	part string
	meaning
}{
	{"max number of clients reached", refused},
	{"ACL failure in script", forbidden},          // Redis 7.2 and up, Valkey
	{"The user executing the script ", forbidden}, // up to 7.0
	{"invalid password", loggedOut},               // Redis 5
	{"Client sent AUTH, but no password is set", loggedOut},
	{"without any password configured", loggedOut},
	{"DB index is out of range", badDatabase},
	{"unknown command", unsupported},
	{"Unknown command called from", unsupported}, // Valkey
	{"Unknown Redis command called from", unsupported},
}

func meaningOf(text string) meaning {
	word, _, _ := strings.Cut(text, " ")
	if m, ok := meanings[word]; ok {
		return m
	}
	for _, p := range phrases {
		if strings.Contains(text, p.part) {
			return p.meaning
		}
	}
	return unclear
}

// replyError is an error reply of the server, in the driver's words. It does not wrap rueidis's
// error: that repeats the reply as it came, and a server in which AUTH was renamed away quotes
// the password.
type replyError struct {
	meaning
	is   error
	text string
}

func (e *replyError) Error() string { return e.is.Error() + ": " + e.text }
func (e *replyError) Unwrap() error { return e.is }

// means says whether err is a reply with that meaning.
func means(err error, m meaning) bool {
	var e *replyError
	return errors.As(err, &e) && e.meaning == m
}

// classify turns what rueidis says into the driver's words. A connection that will go on
// refusing is given up.
func (b *backend) classify(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if b.closed.Load() {
		return driver.ErrClosed
	}
	err = b.secrets.classify(ctx, err, false)
	if means(err, wrongPeer) {
		b.dropConnections()
	}
	return err
}

// classify is the same without a backend. opening: what the server refuses then is a mistake
// in the configuration; later on it may be one of an administrator, and pass.
func (s *secrets) classify(ctx context.Context, err error, opening bool) error {
	if reply, ok := rueidis.IsRedisErr(err); ok {
		return s.reply(ctx, reply.Error(), opening)
	}
	if errors.Is(err, rueidis.ErrNoCache) { // CLIENT TRACKING was refused while connecting
		text, _, _ := strings.Cut(err.Error(), "\n")
		return &replyError{meaning: refused, is: driver.ErrRefused, text: s.words(text)}
	}
	e := &unavailable{is: []error{driver.ErrUnavailable}, text: s.words(err.Error())}
	for _, sure := range []error{driver.ErrRefused, driver.ErrClosed} { // it was not sent
		if errors.Is(err, sure) {
			e.is[0] = sure
		}
	}
	ended := ctx.Err()
	if until, ok := ctx.Deadline(); ok && ended == nil && errors.Is(err, context.DeadlineExceeded) && !time.Now().Before(until) {
		ended = context.DeadlineExceeded // rueidis keeps deadlines by timers of its own, too
	}
	switch foreign := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded); {
	case ended != nil:
		if !errors.Is(err, ended) {
			e.text += ": " + ended.Error()
		}
		e.is = append(e.is, ended)
	case !foreign: // that is somebody else's ctx, or a time limit of the connection's
		e.is = append(e.is, err)
	}
	return e
}

// unavailable is an error without an answer. Its text is one line without secrets, whatever
// the errors that it matches say.
type unavailable struct {
	is   []error
	text string
}

func (e *unavailable) Error() string   { return driver.ErrUnavailable.Error() + ": " + e.text }
func (e *unavailable) Unwrap() []error { return e.is }

func (s *secrets) reply(ctx context.Context, raw string, opening bool) error {
	m := meaningOf(clean(raw)) // before anything is hidden: a password may be "OOM"
	text := s.words(raw)
	e := &replyError{meaning: m, text: text}
	switch m {
	case unclear:
		is := []error{driver.ErrUnavailable}
		if ctx.Err() != nil {
			is, text = append(is, ctx.Err()), text+": "+ctx.Err().Error()
		}
		return &unavailable{is, text}
	case refused:
		e.is = driver.ErrRefused
	case wrongPeer:
		e.is = driver.ErrWrongPeer
	case loggedOut:
		e.is = driver.ErrRefused
		e.text = "it refused the login: " + text
		if opening {
			e.is = driver.ErrInvalidConfig
			e.text = "username, password: the server refused them: " + text
			if strings.HasPrefix(text, "NOAUTH") {
				e.text = "password: the server asks for one: " + text
			}
		}
	case undone:
		e.is = driver.ErrLost
	case forbidden:
		e.is = driver.ErrRefused
		e.text = "its ACL does not allow it: " + text
		if opening {
			e.is = driver.ErrInvalidConfig
			e.text = "username: the ACL of this user does not allow what is needed (docs/configuration.md): " + text
		}
	case foreign:
		e.is = driver.ErrRefused
		e.text = "something else stands where the lock or its counter should; delete it or change prefix: " + text
	case unsupported:
		e.is = driver.ErrUnsupported
		e.text = "the server lacks a command: " + text
	case badDatabase:
		e.is = driver.ErrInvalidConfig
		e.text = "db: the server does not have so many: " + text
	}
	return e
}

var (
	// How servers up to 6.2 put an error that a script met:
	// "ERR Error running script (call to f_…): @user_script:1: @user_script: 1: -OOM command …".
	// By pcall it comes without the first part.
	scriptBefore = regexp.MustCompile(`^(?:(?:ERR )?Error (?:running|compiling) script \([^)]*\): )?(?:(?:ERR )?@?user_script: ?\d+: )*-?`)
	// And those after: "OOM command … script: …, on @user_script:1."
	scriptAfter = regexp.MustCompile(`(?: script: [0-9a-f]{40}, on)? @?user_script: ?\d+\.?`)
	scriptHash  = regexp.MustCompile(`\b[0-9a-f]{40}\b`)
)

// maxWords cuts a server's text. The longest that is known, MISCONF, has 390 bytes.
const maxWords = 512

// words is a text of the server's or of the network's as errors show it: without what only a
// script's author can use, without the arguments that a command had, without secrets, on one
// line.
func (s *secrets) words(text string) string {
	text = s.hide(clean(text))
	if len(text) > maxWords {
		text = strings.ToValidUTF8(text[:maxWords], "") + "…"
	}
	return oneLine(text)
}

func clean(text string) string {
	text, _, _ = strings.Cut(text, ", with args beginning with")
	text = scriptBefore.ReplaceAllString(text, "")
	text = scriptAfter.ReplaceAllString(text, "")
	return strings.TrimSpace(scriptHash.ReplaceAllString(text, "…"))
}

// oneLine escapes what is not printable: a server's text must not begin a new line in a log, nor
// speak to a terminal.
func oneLine(text string) string {
	plain := func(r rune) bool { return unicode.IsPrint(r) && r != unicode.ReplacementChar }
	if strings.IndexFunc(text, func(r rune) bool { return !plain(r) }) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if plain(r) {
			b.WriteRune(r)
		} else {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

// secrets are the values that no text may show. Passwords come from files too, and change.
type secrets struct {
	mu  sync.Mutex
	all []string
}

// maxSecrets is how many are remembered: the newest of those that rotation brought.
const maxSecrets = 16

func (s *secrets) add(values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range values {
		if v == "" || slices.Contains(s.all, v) {
			continue
		}
		if len(s.all) == maxSecrets {
			s.all = slices.Delete(s.all, 0, 1)
		}
		s.all = append(s.all, v)
	}
}

// hide replaces the secrets in text, also where the text has escaped them.
func (s *secrets) hide(text string) string {
	s.mu.Lock()
	longest := slices.Clone(s.all)
	s.mu.Unlock()
	// The longest first: one may be part of another.
	slices.SortFunc(longest, func(a, b string) int { return len(b) - len(a) })
	for _, secret := range longest {
		for _, form := range []string{secret, strings.Trim(strconv.Quote(secret), `"`)} {
			text = replace(text, form)
		}
	}
	return text
}

// replace hides secret in text. A short one would be found within words, and a text in which
// every e is hidden says nothing any more, except what the secret is: it has to stand alone.
func replace(text, secret string) string {
	const short = 4
	if len(secret) >= short {
		return strings.ReplaceAll(text, secret, hidden)
	}
	var b strings.Builder
	for {
		i := strings.Index(text, secret)
		if i < 0 {
			return b.String() + text
		}
		before, _ := utf8.DecodeLastRuneInString(b.String() + text[:i])
		after, _ := utf8.DecodeRuneInString(text[i+len(secret):])
		b.WriteString(text[:i])
		if isWord(before) || isWord(after) {
			b.WriteString(secret)
		} else {
			b.WriteString(hidden)
		}
		text = text[i+len(secret):]
	}
}

const hidden = "(hidden)"

func isWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
