// Command dashboard makes the picture of the dashboard in the documents from a real run: a program
// with locks in memory and in a Redis that hangs for a while, OpenTelemetry's SDK with its Prometheus
// exporter, and a Prometheus that scrapes it. Prometheus answers the queries of
// adapters/otel/dashboard.json, and the answers are drawn here: the curves are those that Grafana
// would show, the drawing is not Grafana's.
//
//	go run ./internal/dashboard docs/dashboard.svg
//
// It needs redis-server and prometheus, and takes some minutes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/metric"

	otellock "github.com/lockstep-go/lockstep/adapters/otel"
	_ "github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/locker"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("dashboard: ")
	board := flag.String("dashboard", "adapters/otel/dashboard.json", "the dashboard")
	length := flag.Duration("for", 4*time.Minute, "how long the run takes")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("the file for the picture is missing")
	}
	if err := run(context.Background(), *board, flag.Arg(0), *length); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, board, out string, length time.Duration) error {
	dir, err := os.MkdirTemp("", "dashboard")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	redisPort, err := freePort()
	if err != nil {
		return err
	}
	server := exec.CommandContext(ctx, "redis-server", "--port", redisPort, "--save", "", "--dir", dir)
	if err := server.Start(); err != nil {
		return err
	}
	observer, metrics, err := observe()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(listener, metrics) }()
	base, err := startPrometheus(ctx, dir, listener.Addr().String())
	if err != nil {
		return err
	}

	workCtx, endWork := context.WithTimeout(ctx, length)
	defer endWork()
	began := time.Now()
	time.AfterFunc(length/2, func() { _ = server.Process.Signal(syscall.SIGSTOP) })
	time.AfterFunc(length/2+20*time.Second, func() { _ = server.Process.Signal(syscall.SIGCONT) })
	if err := work(workCtx, observer, "127.0.0.1:"+redisPort); err != nil {
		return err
	}
	panels, err := query(ctx, base, board, began, time.Now())
	if err != nil {
		return err
	}
	stop()
	return draw(out, panels, length)
}

// observe is an Observer, and what Prometheus scrapes of it.
func observe() (locker.Observer, http.Handler, error) {
	registry := prometheus.NewRegistry()
	e, err := exporter.New(exporter.WithRegisterer(registry))
	if err != nil {
		return nil, nil, err
	}
	observer, err := otellock.New(otellock.Options{MeterProvider: sdk.NewMeterProvider(sdk.WithReader(e))})
	return observer, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), err
}

func startPrometheus(ctx context.Context, dir, target string) (base string, err error) {
	port, err := freePort()
	if err != nil {
		return "", err
	}
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: program\n    static_configs:\n      - targets: [%q]\n", target)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:"+port)
	if err := cmd.Start(); err != nil {
		return "", err
	}
	base = "http://127.0.0.1:" + port
	for range 200 {
		resp, err := http.Get(base + "/-/ready")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return base, nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return "", errors.New("prometheus is not ready after 20 s")
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// work takes locks of several kinds until ctx ends.
func work(ctx context.Context, observer locker.Observer, addr string) error {
	inMemory, err := locker.Open(ctx, locker.Config{Type: "memory", Observer: observer})
	if err != nil {
		return err
	}
	defer inMemory.Close(context.Background())
	inRedis, err := locker.Open(ctx, locker.Config{Type: "redis", OpenWait: 10 * time.Second, Observer: observer,
		Backend: redis.Config{Addrs: []string{addr}}})
	if err != nil {
		return err
	}
	defer inRedis.Close(context.Background())

	var (
		invoices = locker.NewFamily[int]("invoice", locker.WithTTL(10*time.Second))
		carts    = locker.NewFamily[int]("cart", locker.WithTTL(200*time.Millisecond))
		imports  = locker.NewFamily[int]("import", locker.WithTTL(5*time.Second), locker.WithKeepAlive(0))
	)
	var wg sync.WaitGroup
	loop := func(n int, do func()) {
		for range n {
			wg.Go(func() {
				for ctx.Err() == nil {
					do()
				}
			})
		}
	}
	// sleep takes between a half and one and a half of d.
	sleep := func(ctx context.Context, d time.Duration) {
		select {
		case <-time.After(d/2 + rand.N(d)):
		case <-ctx.Done():
		}
	}
	const few = 4 // keys, for more workers than that
	loop(12, func() {
		_ = invoices.Do(ctx, inRedis, rand.N(few), func(ctx context.Context, _ *locker.Lease) error { sleep(ctx, 60*time.Millisecond); return nil })
		sleep(ctx, 100*time.Millisecond)
	})
	loop(6, func() { // a ttl that is now and then too short for the work
		_ = carts.Do(ctx, inMemory, rand.N(few), func(ctx context.Context, _ *locker.Lease) error {
			d := 30 * time.Millisecond
			if rand.N(200) == 0 {
				d = time.Second
			}
			sleep(ctx, d)
			return nil
		})
		sleep(ctx, 50*time.Millisecond)
	})
	loop(8, func() {
		_ = imports.TryDo(ctx, inRedis, rand.N(6), func(ctx context.Context, _ *locker.Lease) error { sleep(ctx, 8*time.Second); return nil })
		sleep(ctx, time.Second)
	})
	wg.Wait()
	return nil
}

// minutes is how long of d is over, as the axis says it.
func minutes(seconds float64) string {
	return strconv.Itoa(int(seconds)/60) + ":" + fmt.Sprintf("%02d", int(seconds)%60)
}
