package main

import (
	"context"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// What is shown of a wait: after a second, whenever the holder has changed, and once in a while.
const (
	progressAfter = time.Second
	progressLook  = time.Second
	progressAgain = time.Minute
)

// showWaiting says on stderr who holds key for as long as the caller waits for it.
func showWaiting(ctx context.Context, l *locker.Locker, key string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		var last locker.Info
		var said time.Time
		began := time.Now()
		for timer := time.NewTimer(progressAfter); ; timer.Reset(progressLook) {
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			info, held, err := l.Inspect(ctx, key)
			if err != nil || !held || info.Token == last.Token && time.Since(said) < progressAgain {
				continue // an outage is told of by an event
			}
			last, said = info, time.Now()
			say("waiting for %s for %s; %s", quote(key), short(time.Since(began)), holderText(info))
		}
	}()
	return func() {
		cancel()
		<-gone
	}
}

// holderText says who holds a key, since when, and for how long it may.
func holderText(info locker.Info) string {
	text := "held by " + holderOf(info)
	if info.Note != "" {
		text += " (" + quote(info.Note) + ")"
	}
	if !info.Since.IsZero() {
		text += " for " + short(time.Since(info.Since))
	}
	switch {
	case info.Session && info.Remaining > 0:
		text += ", until it is released, or " + short(info.Remaining) + " after its process has died"
	case info.Session:
		text += ", until it is released"
	default:
		text += ", for another " + short(info.Remaining) + " unless it is extended"
	}
	return text
}

// holderOf is the holder's identity, or what there is in its place.
func holderOf(info locker.Info) string {
	if info.Identity != "" {
		return quote(info.Identity)
	}
	return quote(info.Owner)
}

// wordsOf is err without the name that say puts before it.
func wordsOf(err error) string { return strings.TrimPrefix(err.Error(), "lockstep: ") }
