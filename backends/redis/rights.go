package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

//go:embed lua/rights.lua
var rightsSource string

var rightsScript = rueidis.NewLuaScript(rightsSource)

// optional are the commands without which locks work, if less well: PEXPIRETIME gives way to
// TIME, DECR is for a counter at its end, TYPE names what stands in a lock's place, SCAN and ZCARD are
// for people who look, and the others keep the order of those who wait.
var optional = []string{"PEXPIRETIME", "DECR", "TYPE", "SCAN", "ZCARD", "ZADD", "ZPOPMIN", "ZREM", "ZRANK"}

// rightsTimeout bounds the question what the user may do: a node of a Cluster that hangs must
// not keep it from opening.
const rightsTimeout = time.Second

// checkRights asks every master what this client's user may do, and names what is missing.
// Anything but a missing right is left for the operations to meet: it may pass.
func (b *backend) checkRights(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, rightsTimeout)
	defer cancel()
	found := make(chan error, 1)
	go func() { found <- b.missingRights(ctx) }()
	select {
	case err := <-found:
		return err
	case <-ctx.Done():
		return nil
	}
}

func (b *backend) missingRights(ctx context.Context) error {
	tags, err := b.tags(ctx)
	if err != nil {
		return b.ifMistake(ctx, err, "")
	}
	var asks []func() error
	for _, tag := range tags {
		asks = append(asks, func() error { return b.checkRightsAt(ctx, tag) })
	}
	if b.client.Mode() == rueidis.ClientModeCluster {
		// Without it rueidis is led to and fro between the nodes of a slot that is being
		// migrated, for as long as that lasts.
		for _, node := range b.client.Nodes() {
			asks = append(asks, func() error {
				return b.ifMistake(ctx, node.Do(ctx, node.B().Arbitrary("ASKING").Build()).Error(), "")
			})
		}
	}
	wrong := make(chan error, len(asks))
	for _, ask := range asks {
		go func() { wrong <- ask() }()
	}
	for range asks {
		select {
		case err := <-wrong:
			if err != nil {
				return err
			}
		case <-ctx.Done(): // the others are well, as far as they have answered
			return nil
		}
	}
	return nil
}

func (b *backend) checkRightsAt(ctx context.Context, tag string) error {
	probe := b.layout.probeKey(tag)
	counter := b.layout.token + "probe:{" + tag + "}"
	// EVALSHA is enough for a script that the server has already; EVAL is for the first one.
	if err := b.client.Do(ctx, b.client.B().Eval().Script("return 1").Numkeys(1).Key(probe).Build()).Error(); err != nil {
		return b.ifMistake(ctx, err, "~"+b.cfg.Prefix+":*")
	}
	failed, err := rightsScript.Exec(ctx, b.client, []string{probe, counter, counter + ":queue"}, nil).AsStrSlice()
	if err != nil {
		return b.ifMistake(ctx, err, "~token:"+b.cfg.Prefix+":*")
	}
	var missing []string
	for ; len(failed) >= 3; failed = failed[3:] {
		command, key, text := failed[0], failed[1], clean(failed[2])
		if meaningOf(text) != forbidden || slices.Contains(optional, command) {
			continue
		}
		right := "+" + strings.ToLower(command)
		if ofKeys(text) {
			right = "~" + b.cfg.Prefix + ":*"
			if key != "1" {
				right = "~token:" + b.cfg.Prefix + ":*"
			}
		}
		if !slices.Contains(missing, right) {
			missing = append(missing, right)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return lacks(b.cfg.Username, missing...)
}

var whichCommand = regexp.MustCompile(`run the '([a-z|-]+)' command`)

// ofKeys says whether what is forbidden is a key rather than a command: "can't access at least
// one of the keys …", "No permissions to access a key".
func ofKeys(text string) bool {
	return strings.Contains(text, "access") && strings.Contains(text, "key")
}

// ifMistake is err as Open reports it if the configuration is to blame, or nil. keys are those
// that the command had in addition to the ones before it.
func (b *backend) ifMistake(ctx context.Context, err error, keys string) error {
	if err == nil {
		return nil
	}
	err = b.mistake(ctx, err)
	var reply *replyError
	if errors.As(err, &reply) && reply.meaning == forbidden && ofKeys(reply.text) && keys != "" {
		return lacks(b.cfg.Username, keys)
	}
	for _, is := range []meaning{forbidden, loggedOut, badDatabase, unsupported} {
		if means(err, is) {
			return err
		}
	}
	var field *driver.FieldError
	if errors.As(err, &field) {
		return field
	}
	return nil
}

// mistake is how Open reports err: what the server refuses at the beginning is a mistake in
// the configuration, unless it says that it is a state of its own.
func (b *backend) mistake(ctx context.Context, err error) error {
	err = b.secrets.classify(ctx, err, true)
	var reply *replyError
	if !errors.As(err, &reply) {
		return err
	}
	switch {
	case reply.meaning == forbidden:
		if m := whichCommand.FindStringSubmatch(reply.text); m != nil {
			return lacks(b.cfg.Username, "+"+m[1])
		}
	case strings.Contains(reply.text, "MOVED "):
		// rueidis takes a server whose CLUSTER SLOTS it may not call for a single one.
		return lacks(b.cfg.Username, "+cluster|slots", "+cluster|shards")
	}
	return reply
}

func lacks(user string, rights ...string) error {
	if user == "" {
		user = "default"
	}
	return driver.Invalid("username", "the ACL of %v lacks %s", user, rightsText(rights)).With("addrs")
}

// rightsText keeps driver.Invalid from quoting.
type rightsText []string

func (r rightsText) String() string { return oneLine(fmt.Sprint(strings.Join(r, " "))) }
