-- The tables of piecework. Why each is as it is stands in docs/design.md.
-- supports: 1

CREATE TABLE /*schema.*/jobs (
    id              uuid        NOT NULL,
    run_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_at      timestamptz,
    worker_id       uuid,
    claim_no        integer     NOT NULL DEFAULT 0,
    attempt         integer     NOT NULL DEFAULT 1,
    failures        integer     NOT NULL DEFAULT 0,
    crashes         integer     NOT NULL DEFAULT 0,
    priority        smallint    NOT NULL DEFAULT 0,
    parked          boolean     NOT NULL DEFAULT false,
    queue           text        NOT NULL DEFAULT 'default',
    job_type        text        NOT NULL,
    config          jsonb       NOT NULL,
    concurrency_key text,
    key             text,
    timeout         interval,
    tags            text[],
    metadata        jsonb,
    trace_context   jsonb,
    PRIMARY KEY (id)
) WITH (
    -- An update on the same page does not log the config again (design review, section 10).
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    -- Truncating the table's tail takes a lock that would stop everybody.
    vacuum_truncate = off
);

-- claim: equality on the lane, then the order within it. Rows that may not run are not in it (invariant B).
CREATE INDEX jobs_lane ON /*schema.*/jobs (queue, job_type, priority, run_at, id)
    WHERE worker_id IS NULL AND NOT parked AND concurrency_key IS NULL;
-- the same for jobs with a concurrency key, which are claimed under the lock of their key (invariant A).
CREATE INDEX jobs_key_lane ON /*schema.*/jobs (queue, job_type, priority, run_at, id)
    WHERE worker_id IS NULL AND NOT parked AND concurrency_key IS NOT NULL;
-- the order within a concurrency key, parked or not.
CREATE INDEX jobs_key_order ON /*schema.*/jobs (queue, concurrency_key, priority, run_at, id)
    WHERE concurrency_key IS NOT NULL AND worker_id IS NULL;
-- rescue, self-audit, release at shutdown, what runs now.
CREATE INDEX jobs_owner ON /*schema.*/jobs (worker_id) WHERE worker_id IS NOT NULL;
-- at most one live job per job type and key.
CREATE UNIQUE INDEX jobs_unique_key ON /*schema.*/jobs (job_type, key) WHERE key IS NOT NULL;

CREATE TABLE /*schema.*/concurrency_keys (
    queue           text   NOT NULL,
    concurrency_key text   NOT NULL,
    running         uuid[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (queue, concurrency_key)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE TABLE /*schema.*/finished_jobs (
    id              uuid        NOT NULL,
    run_at          timestamptz NOT NULL,
    created_at      timestamptz NOT NULL,
    started_at      timestamptz,
    finished_at     timestamptz NOT NULL,
    worker_id       uuid,
    claim_no        integer     NOT NULL,
    attempt         integer     NOT NULL,
    failures        integer     NOT NULL,
    crashes         integer     NOT NULL,
    priority        smallint    NOT NULL,
    status          text        NOT NULL CHECK (status IN ('completed', 'errored', 'cancelled')),
    queue           text        NOT NULL,
    job_type        text        NOT NULL,
    config          jsonb,
    result          jsonb,
    error           jsonb,
    concurrency_key text,
    key             text,
    timeout         interval,
    tags            text[],
    metadata        jsonb,
    trace_context   jsonb
) PARTITION BY RANGE (finished_at);

-- one job by its id; also the newest first.
CREATE INDEX finished_jobs_id ON /*schema.*/finished_jobs (id);
-- what went wrong, without reading past what went well.
CREATE INDEX finished_jobs_not_completed ON /*schema.*/finished_jobs (id) WHERE status <> 'completed';

CREATE TABLE /*schema.*/attempts (
    job_id     uuid        NOT NULL,
    claim_no   integer     NOT NULL,
    worker_id  uuid        NOT NULL,
    attempt    integer     NOT NULL,
    move       text        NOT NULL CHECK (move IN ('retry', 'reschedule', 'fail', 'cancel', 'release', 'rescue')),
    started_at timestamptz,
    ended_at   timestamptz NOT NULL,
    error      jsonb,
    next_run_at timestamptz
) PARTITION BY RANGE (ended_at);

-- the attempts of a job in their order; whether a settle landed before.
CREATE INDEX attempts_job ON /*schema.*/attempts (job_id, claim_no);

CREATE TABLE /*schema.*/execution_states (
    job_id     uuid,
    job_type   text,
    key        text,
    claim_no   integer     NOT NULL,
    state      jsonb       NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (job_id),
    UNIQUE (job_type, key),
    CHECK (job_id IS NOT NULL OR (job_type IS NOT NULL AND key IS NOT NULL))
) WITH (fillfactor = 50);

-- of jobs that run: gone when the job has ended, mostly empty.
CREATE TABLE /*schema.*/cancel_requests (
    job_id       uuid        PRIMARY KEY,
    claim_no     integer     NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE TABLE /*schema.*/progress (
    job_id      uuid             PRIMARY KEY,
    claim_no    integer          NOT NULL,
    done        double precision NOT NULL,
    note        text             NOT NULL DEFAULT '',
    reported_at timestamptz      NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

CREATE TABLE /*schema.*/guards (
    job_id    uuid    NOT NULL,
    claim_no  integer NOT NULL,
    worker_id uuid    NOT NULL,
    PRIMARY KEY (job_id, claim_no)
);

CREATE TABLE /*schema.*/workers (
    id         uuid        PRIMARY KEY,
    beat_no    bigint      NOT NULL DEFAULT 0,
    beat_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    draining   boolean     NOT NULL DEFAULT false,
    -- when jobs were taken from it though not all could be: the row stays for the rest, the worker may not go on.
    given_up_at timestamptz,
    pid        integer     NOT NULL,
    host       text        NOT NULL,
    lease      interval    NOT NULL,
    stop       interval    NOT NULL,
    exit       interval    NOT NULL,
    queues     text[]      NOT NULL,
    job_types  text[]      NOT NULL,
    version    text        NOT NULL,
    settings   jsonb,
    -- what it counts of itself, written with its beats (store/liveness.py, Counters).
    counters   jsonb
) WITH (
    fillfactor = 20,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE TABLE /*schema.*/idle_workers (
    worker_id uuid        PRIMARY KEY,
    queues    text[]      NOT NULL,
    job_types text[]      NOT NULL,
    since     timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE /*schema.*/limits (
    scope       text    NOT NULL CHECK (scope IN ('queue', 'job_type', 'concurrency_key')),
    queue       text    NOT NULL DEFAULT '',
    name        text    NOT NULL,
    max_running integer CHECK (max_running >= 0),
    paused      boolean NOT NULL DEFAULT false,
    settings    jsonb,
    PRIMARY KEY (scope, queue, name)
);

CREATE TABLE /*schema.*/schedules (
    name       text        PRIMARY KEY,
    cron       text        NOT NULL,
    zone       text        NOT NULL DEFAULT 'UTC',
    spec       jsonb       NOT NULL,
    paused     boolean     NOT NULL DEFAULT false,
    next_at    timestamptz,
    settings   jsonb,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE /*schema.*/schedule_ticks (
    name    text        NOT NULL,
    tick_at timestamptz NOT NULL,
    job_id  uuid,
    PRIMARY KEY (name, tick_at)
);

CREATE TABLE /*schema.*/duties (
    name    text        PRIMARY KEY,
    every   interval    NOT NULL,
    next_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ran_by  uuid
);

CREATE TABLE /*schema.*/metrics (
    minute   timestamptz NOT NULL,
    queue    text        NOT NULL,
    job_type text        NOT NULL,
    counts   jsonb       NOT NULL,
    latency  bigint[],
    PRIMARY KEY (minute, queue, job_type)
);

INSERT INTO /*schema.*/duties (name, every) VALUES ('partitions', '1 hour');
