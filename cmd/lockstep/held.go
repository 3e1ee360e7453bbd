package main

import (
	"encoding/base64"
	"time"
	"unicode/utf8"

	"github.com/lockstep-go/lockstep/locker"
)

// held is one hold in JSON. The fields are documented in docs/command.md, and stable: new ones may
// come, none goes or changes.
type held struct {
	Key string `json:"key"`
	// KeyBytes are the key's bytes in base64 where it is not UTF-8, which JSON cannot hold.
	KeyBytes    string     `json:"keyBytes,omitempty"`
	Held        bool       `json:"held"`
	Kind        string     `json:"kind,omitempty"` // lease or session
	Identity    string     `json:"identity,omitempty"`
	Note        string     `json:"note,omitempty"`
	Owner       string     `json:"owner,omitempty"`
	Token       uint64     `json:"token,omitempty"`
	Since       *time.Time `json:"since,omitempty"`
	RemainingMS *int64     `json:"remainingMs,omitempty"`
	Waiters     *int       `json:"waiters,omitempty"`
}

func free(key string) held {
	h := held{Key: key}
	if !utf8.ValidString(key) {
		h.KeyBytes = base64.StdEncoding.EncodeToString([]byte(key))
	}
	return h
}

func heldOf(info locker.Info) held {
	h := free(info.Key)
	h.Held, h.Kind = true, kind(info)
	h.Identity, h.Note, h.Owner, h.Token = info.Identity, info.Note, info.Owner, info.Token
	if !info.Since.IsZero() {
		since := info.Since.UTC().Truncate(time.Millisecond)
		h.Since = &since
	}
	if info.Remaining > 0 || !info.Session {
		ms := info.Remaining.Milliseconds()
		h.RemainingMS = &ms
	}
	if info.Waiters >= 0 {
		h.Waiters = &info.Waiters
	}
	return h
}

func kind(info locker.Info) string {
	if info.Session {
		return "session"
	}
	return "lease"
}

// age is how long ago it was granted, for people.
func age(info locker.Info) string {
	if info.Since.IsZero() {
		return "?"
	}
	return short(max(time.Since(info.Since), 0))
}

// remaining is how long the hold lasts unless it is renewed, for people.
func remaining(info locker.Info) string {
	if info.Session && info.Remaining == 0 {
		return "-"
	}
	return short(info.Remaining)
}
