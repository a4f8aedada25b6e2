// The roles of harness.py for River: pgx, InsertManyFast by COPY, a worker that fetches as often as it may.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const (
	samples     = 1 << 18
	header      = 8
	batch       = 1000
	tick        = 0.01
	connections = 20
	left        = "SELECT EXISTS (SELECT FROM river_job WHERE state IN ('available', 'running', 'retryable', 'scheduled', 'pending'))"
)

const (
	count = iota
	first
	last
	cpu
	waits
)

var (
	text = strings.Repeat("x", 72)
	slot []uint64
)

type noop struct {
	Number int    `json:"number"`
	Text   string `json:"text"`
	Sent   uint64 `json:"sent"`
}

func (noop) Kind() string { return "noop" }

type worker struct{ river.WorkerDefaults[noop] }

func (worker) Work(_ context.Context, job *river.Job[noop]) error {
	hit(job.Args.Sent)
	return nil
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func clock(id uintptr) uint64 {
	var at syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&at)), 0)
	return uint64(at.Nano())
}

func now() uint64  { return clock(1) }
func used() uint64 { return clock(2) }

func openTally() {
	file := must(os.OpenFile(os.Getenv("BENCH_TALLY"), os.O_RDWR, 0))
	number := 0
	if given := os.Getenv("BENCH_SLOT"); given != "" {
		number = must(strconv.Atoi(given))
	}
	words := (number + 1) * (header + samples)
	bytes := must(syscall.Mmap(int(file.Fd()), 0, words*8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED))
	slot = unsafe.Slice((*uint64)(unsafe.Pointer(&bytes[0])), words)[number*(header+samples):]
}

func hit(sent uint64) {
	at := now()
	if atomic.CompareAndSwapUint64(&slot[first], 0, at) {
		atomic.StoreUint64(&slot[cpu], used())
	}
	if sent != 0 {
		index := atomic.AddUint64(&slot[waits], 1) - 1
		atomic.StoreUint64(&slot[header+index%samples], at-sent)
	}
	atomic.StoreUint64(&slot[last], at)
	atomic.AddUint64(&slot[count], 1)
}

func open(ctx context.Context, queues map[string]river.QueueConfig) (*pgxpool.Pool, *river.Client[pgx.Tx]) {
	config := must(pgxpool.ParseConfig(os.Getenv("BENCH_DSN")))
	config.MaxConns = connections
	pool := must(pgxpool.NewWithConfig(ctx, config))
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{})
	return pool, must(river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues: queues, Workers: workers, FetchCooldown: time.Millisecond, FetchPollInterval: 100 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	}))
}

type spawner struct {
	ctx    context.Context
	client *river.Client[pgx.Tx]
}

func (s spawner) one(number int, sent uint64) { must(s.client.Insert(s.ctx, noop{number, text, sent}, nil)) }

func (s spawner) many(from, to int, sent uint64) {
	params := make([]river.InsertManyParams, 0, to-from)
	for number := from; number < to; number++ {
		params = append(params, river.InsertManyParams{Args: noop{number, text, sent}})
	}
	must(s.client.InsertManyFast(s.ctx, params))
}

func (s spawner) enqueue(n int, mode string) map[string]any {
	s.one(0, 0)
	start, spent := now(), used()
	if mode == "bulk" {
		for from := 1; from < n; from += batch {
			s.many(from, min(from+batch, n), 0)
		}
	} else {
		callers := 1
		if mode == "c10" {
			callers = 10
		}
		var next atomic.Int64
		var group sync.WaitGroup
		for range callers {
			group.Go(func() {
				for number := int(next.Add(1)); number < n; number = int(next.Add(1)) {
					s.one(number, 0)
				}
			})
		}
		group.Wait()
	}
	return map[string]any{"seconds": float64(now()-start) / 1e9, "count": n - 1, "cpu": float64(used()-spent) / 1e9}
}

func (s spawner) latency(n int, gap float64) map[string]any {
	s.one(0, 0)
	for number := range n {
		time.Sleep(time.Duration(gap * 1e9))
		s.one(number, now())
	}
	time.Sleep(time.Second)
	return map[string]any{"count": n}
}

func (s spawner) steady(n int, rate float64) map[string]any {
	size := batch
	if rate > 0 {
		size = min(max(int(rate*tick), 1), batch)
	}
	start := now()
	for from := 0; from < n; from += size {
		if rate > 0 {
			time.Sleep(time.Duration(float64(from)/rate*1e9) - time.Duration(now()-start))
		}
		s.many(from, min(from+size, n), now())
	}
	return map[string]any{"started": float64(start) / 1e9, "ended": float64(now()) / 1e9, "count": n}
}

func version() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/riverqueue/river" {
			return module.Version
		}
	}
	return ""
}

func main() {
	role := os.Args[1]
	flags := flag.NewFlagSet(role, flag.ExitOnError)
	n := flags.Int("n", 0, "")
	mode := flags.String("mode", "", "")
	gap := flags.Float64("gap", 0.02, "")
	rate := flags.Float64("rate", 0, "")
	concurrency := flags.Int("concurrency", 0, "")
	flags.Parse(os.Args[2:])
	ctx := context.Background()
	say := map[string]any{}
	switch role {
	case "info":
		say = map[string]any{"version": version(), "left": left, "bulk": true}
	case "setup":
		pool, _ := open(ctx, nil)
		migrator := must(rivermigrate.New(riverpgxv5.New(pool), nil))
		must(migrator.Migrate(ctx, rivermigrate.DirectionUp, nil))
	case "enqueue", "latency", "steady":
		_, client := open(ctx, nil)
		s := spawner{ctx, client}
		switch role {
		case "enqueue":
			say = s.enqueue(*n, *mode)
		case "latency":
			say = s.latency(*n, *gap)
		default:
			say = s.steady(*n, *rate)
		}
	default:
		openTally()
		_, client := open(ctx, map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: *concurrency}})
		if err := client.Start(ctx); err != nil {
			panic(err)
		}
		select {}
	}
	fmt.Println(string(must(json.Marshal(say))))
}
