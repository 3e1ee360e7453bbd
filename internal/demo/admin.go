package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/redis/rueidis"
)

// An administrator is somebody with direct access to the Redis and no respect for
// locks. No program that uses Lockstep does what this file does.
type administrator struct {
	option rueidis.ClientOption // how the backend connects
}

// config reads the configuration and, where it is of a Redis, looks over the backend's
// shoulder for the address and the credentials. What source says is laid over what the
// program gives, so the hook stays whatever the source is.
func (a *administrator) config(source string) (locker.Config, error) {
	cfg, err := locker.LoadConfig(source)
	if err != nil || cfg.Type != "redis" {
		return cfg, err
	}
	look := func(option *rueidis.ClientOption) { a.option = *option }
	return locker.Config{Type: cfg.Type, Backend: redis.Config{ClientOption: look}}.Load(source)
}

// place says where the store is. Addresses are no secret; everything else may be.
func (a *administrator) place() string {
	if len(a.option.InitAddress) == 0 {
		return ""
	}
	return " at " + strings.Join(a.option.InitAddress, ", ")
}

// redisKey is a lock's key in Redis, found by an administrator.
type redisKey struct {
	client rueidis.Client
	name   string
}

// find searches for the lock's key as redis-cli --scan does. The package
// backends/redis documents the layout: prefix, ":0:", and the key as a hash tag.
func (a *administrator) find(ctx context.Context, key string) (*redisKey, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	option := a.option
	option.DisableCache = true
	client, err := rueidis.NewClient(option)
	if err != nil {
		return nil, err
	}
	pattern := "*:0:{:" + strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(key) + "}"
	for _, node := range client.Nodes() {
		for cursor := uint64(0); ; {
			page, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Match(pattern).Count(1000).Build()).AsScanEntry()
			if err != nil {
				client.Close()
				return nil, fmt.Errorf("SCAN: %w", err)
			}
			if len(page.Elements) > 0 {
				return &redisKey{client, page.Elements[0]}, nil
			}
			if cursor = page.Cursor; cursor == 0 {
				break
			}
		}
	}
	client.Close()
	return nil, errors.New("SCAN did not find it")
}

func (k *redisKey) delete(ctx context.Context) error {
	return k.client.Do(ctx, k.client.B().Del().Key(k.name).Build()).Error()
}

func (k *redisKey) forget() { k.client.Close() }
