//! The roles of harness.py for the crate `job`: single runners, or with BENCH_BATCHED one runner per batch.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use job::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

const SAMPLES: usize = 1 << 18;
const HEADER: usize = 8;
const BATCH: usize = 1000;
const TICK: f64 = 0.01;
const CONCURRENCY: usize = 50;
const CONNECTIONS: u32 = 50;
const NOTIFIED: Duration = Duration::from_millis(200);
const COUNT: usize = 0;
const FIRST: usize = 1;
const LAST: usize = 2;
const CPU: usize = 3;
const WAITS: usize = 4;
const LEFT: &str = "SELECT EXISTS (SELECT FROM job_executions)";

type Anything = Box<dyn Error + Send + Sync>;

#[derive(Serialize, Deserialize, Clone)]
struct Config {
    number: usize,
    text: String,
    sent: u64,
}

fn config(number: usize, sent: u64) -> Config {
    Config { number, text: "x".repeat(72), sent }
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(id, &mut at) };
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}

fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

#[derive(Clone, Copy)]
struct Tally(&'static [AtomicU64]);

impl Tally {
    fn open() -> Self {
        use std::os::fd::AsRawFd;
        let path = std::env::var("BENCH_TALLY").expect("BENCH_TALLY");
        let slot: usize = std::env::var("BENCH_SLOT").map_or(0, |slot| slot.parse().expect("BENCH_SLOT"));
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("the tally");
        let words = (slot + 1) * (HEADER + SAMPLES);
        let whole = unsafe {
            let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
            let start = libc::mmap(std::ptr::null_mut(), words * 8, access, kind, file.as_raw_fd(), 0);
            assert_ne!(start, libc::MAP_FAILED);
            std::slice::from_raw_parts(start as *const AtomicU64, words)
        };
        Tally(&whole[slot * (HEADER + SAMPLES)..])
    }

    fn hit(&self, sent: u64) {
        let at = now();
        if self.0[FIRST].compare_exchange(0, at, SeqCst, SeqCst).is_ok() {
            self.0[CPU].store(clock(libc::CLOCK_PROCESS_CPUTIME_ID), SeqCst);
        }
        if sent != 0 {
            let index = self.0[WAITS].fetch_add(1, SeqCst) as usize;
            self.0[HEADER + index % SAMPLES].store(at.saturating_sub(sent), SeqCst);
        }
        self.0[LAST].fetch_max(at, SeqCst);
        self.0[COUNT].fetch_add(1, SeqCst);
    }
}

struct Single(Tally);
struct SingleRunner(Tally, Config);

impl JobInitializer for Single {
    type Config = Config;

    fn job_type(&self) -> JobType {
        JobType::new("noop")
    }

    fn init(&self, job: &Job, _: JobSpawner<Config>) -> Result<Box<dyn JobRunner>, Anything> {
        Ok(Box::new(SingleRunner(self.0, job.config()?)))
    }
}

#[async_trait]
impl JobRunner for SingleRunner {
    async fn run(&self, _: CurrentJob) -> Result<JobCompletion, Anything> {
        self.0.hit(self.1.sent);
        Ok(JobCompletion::Complete)
    }
}

struct Batched(Tally, usize);
struct BatchRunner(Tally);

impl BatchedJobInitializer for Batched {
    type Config = Config;

    fn job_type(&self) -> JobType {
        JobType::new("noop")
    }

    fn max_batch_size(&self) -> usize {
        self.1
    }

    fn init(&self, _: JobSpawner<Config>) -> Result<Box<dyn BatchedJobRunner<Config = Config>>, Anything> {
        Ok(Box::new(BatchRunner(self.0)))
    }
}

#[async_trait]
impl BatchedJobRunner for BatchRunner {
    type Config = Config;

    async fn run_batch(&self, batch: CurrentBatchedJob<Config>) -> Result<JobBatchCompletion, Anything> {
        for item in batch.items() {
            self.0.hit(item.config().sent);
        }
        Ok(JobBatchCompletion::CompleteAll)
    }
}

/// The service and the spawner of the job type, with tables if they are wanted.
async fn open(migrate: bool, concurrency: usize) -> (Jobs, JobSpawner<Config>) {
    let poller = JobPollerConfig {
        max_jobs_per_process: concurrency.max(2),
        min_jobs_per_process: (concurrency * 3 / 5).max(1),
        ..Default::default()
    };
    let settings = JobSvcConfig::builder()
        .pg_con(std::env::var("BENCH_DSN").expect("BENCH_DSN"))
        .max_connections(CONNECTIONS)
        .exec_migrations(migrate)
        .poller_config(poller)
        .build()
        .expect("settings");
    let mut jobs = Jobs::init(settings).await.expect("jobs");
    let spawner = if std::env::var("BENCH_BATCHED").is_ok() {
        jobs.add_batched_initializer(Batched(Tally::open(), concurrency))
    } else {
        jobs.add_initializer(Single(Tally::open()))
    };
    (jobs, spawner)
}

async fn one(spawner: &JobSpawner<Config>, number: usize, sent: u64) {
    spawner.spawn(JobId::new(), config(number, sent)).await.expect("spawn");
}

async fn many(spawner: &JobSpawner<Config>, numbers: std::ops::Range<usize>, sent: u64) {
    let specs = numbers.map(|number| JobSpec::new(JobId::new(), config(number, sent))).collect();
    spawner.spawn_all(specs).await.expect("spawn_all");
}

async fn enqueue(spawner: &JobSpawner<Config>, n: usize, mode: &str) -> serde_json::Value {
    one(spawner, 0, 0).await;
    let (start, cpu) = (now(), clock(libc::CLOCK_PROCESS_CPUTIME_ID));
    if mode == "bulk" {
        for first in (1..n).step_by(BATCH) {
            many(spawner, first..(first + BATCH).min(n), 0).await;
        }
    } else {
        let next = Arc::new(AtomicUsize::new(1));
        let callers = (0..if mode == "c10" { 10 } else { 1 }).map(|_| {
            let (next, spawner) = (next.clone(), spawner.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, SeqCst);
                    if number >= n {
                        break;
                    }
                    one(&spawner, number, 0).await;
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.expect("a caller");
        }
    }
    let used = clock(libc::CLOCK_PROCESS_CPUTIME_ID) - cpu;
    json!({"seconds": (now() - start) as f64 / 1e9, "count": n - 1, "cpu": used as f64 / 1e9})
}

async fn latency(spawner: &JobSpawner<Config>, n: usize, gap: f64) -> serde_json::Value {
    one(spawner, 0, 0).await;
    for number in 0..n {
        tokio::time::sleep(Duration::from_secs_f64(gap)).await;
        one(spawner, number, now()).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    json!({"count": n})
}

async fn steady(spawner: &JobSpawner<Config>, n: usize, rate: f64) -> serde_json::Value {
    let size = if rate > 0.0 { ((rate * TICK) as usize).clamp(1, BATCH) } else { BATCH };
    let start = now();
    for first in (0..n).step_by(size) {
        let early = if rate > 0.0 { first as f64 / rate - (now() - start) as f64 / 1e9 } else { 0.0 };
        if early > 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(early)).await;
        }
        many(spawner, first..(first + size).min(n), now()).await;
    }
    json!({"started": start as f64 / 1e9, "ended": now() as f64 / 1e9, "count": n})
}

#[tokio::main]
async fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let options: HashMap<&str, &str> = given[1..].chunks(2).map(|pair| (&pair[0][2..], pair[1].as_str())).collect();
    let number = |name: &str| options.get(name).map_or(0.0, |text| text.parse::<f64>().expect("a number"));
    let n = number("n") as usize;
    let migrate = given[0] == "setup";
    let concurrency = options.get("concurrency").map_or(CONCURRENCY, |text| text.parse().expect("a number"));
    let (mut jobs, spawner) = open(migrate, concurrency).await;
    let say = match given[0].as_str() {
        "info" => json!({"version": std::env::var("BENCH_VERSION").expect("BENCH_VERSION"), "left": LEFT, "bulk": true}),
        "setup" => json!({}),
        "enqueue" => enqueue(&spawner, n, options["mode"]).await,
        "latency" => latency(&spawner, n, number("gap")).await,
        "steady" => steady(&spawner, n, number("rate")).await,
        _ => {
            jobs.start_poll().await.expect("start_poll");
            std::future::pending::<()>().await;
            json!({})
        }
    };
    // The notifications of the last spawns are sent by a task beside them.
    tokio::time::sleep(NOTIFIED).await;
    println!("{say}");
    std::process::exit(0);
}
