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
    -- how many jobs of its concurrency key may run at once with it, unless an operator says otherwise; null: 1.
    concurrency_limit smallint,
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
-- what waits behind its concurrency key, and whether anything does.
CREATE INDEX jobs_parked ON /*schema.*/jobs (queue, concurrency_key) WHERE parked;
-- rescue, self-audit, release at shutdown, what runs now.
CREATE INDEX jobs_owner ON /*schema.*/jobs (worker_id) WHERE worker_id IS NOT NULL;
-- at most one live job per job type and key.
CREATE UNIQUE INDEX jobs_unique_key ON /*schema.*/jobs (job_type, key) WHERE key IS NOT NULL;

-- A row per concurrency key in use. It is the one lock under which a job of the key is claimed, parked or handed on, and
-- holds the ids of those that run: unlike a counter it can be compared with the jobs.
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
    concurrency_limit smallint,
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
-- What could be compressed is compressed when it comes from `jobs`; what could not would be tried again with every settle.
ALTER TABLE /*schema.*/finished_jobs ALTER COLUMN config SET STORAGE EXTERNAL;

-- one job by its id; also the newest first.
CREATE INDEX finished_jobs_id ON /*schema.*/finished_jobs (id);
-- what went wrong, without reading past what went well.
CREATE INDEX finished_jobs_not_completed ON /*schema.*/finished_jobs (id) WHERE status <> 'completed';
-- the generations of a key.
CREATE INDEX finished_jobs_key ON /*schema.*/finished_jobs (job_type, key, id) WHERE key IS NOT NULL;

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

-- What runs save between their attempts: by job, or of job types whose keys inherit it, by job type and key.
CREATE TABLE /*schema.*/execution_states (
    job_id     uuid,
    job_type   text,
    key        text,
    -- who saved it last
    saved_by   uuid        NOT NULL,
    claim_no   integer     NOT NULL,
    state      jsonb       NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (job_id),
    UNIQUE (job_type, key),
    CHECK ((job_id IS NULL) = (job_type IS NOT NULL AND key IS NOT NULL))
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

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

-- What runs report of themselves, and their results so far: gone when the job has ended.
CREATE TABLE /*schema.*/progress (
    job_id      uuid             PRIMARY KEY,
    claim_no    integer          NOT NULL,
    done        double precision,
    note        text             NOT NULL DEFAULT '',
    result      jsonb,
    reported_at timestamptz      NOT NULL DEFAULT clock_timestamp()
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

-- Of completions in a transaction of the user's own: without what it stands for, the transaction cannot be committed, also
-- where an error was swallowed or a savepoint rolled back (design review, section 5). Always empty to others.
CREATE TABLE /*schema.*/guards (
    job_id    uuid    NOT NULL,
    claim_no  integer NOT NULL,
    worker_id uuid    NOT NULL,
    PRIMARY KEY (job_id, claim_no)
) WITH (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE FUNCTION /*schema.*/check_guard() RETURNS trigger
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
AS $$
BEGIN
    IF (SELECT true FROM finished_jobs f
        WHERE f.id = NEW.job_id AND f.claim_no = NEW.claim_no AND f.worker_id = NEW.worker_id
          AND f.finished_at > clock_timestamp() - interval '8 days' LIMIT 1) IS NULL
       AND (SELECT true FROM attempts a
            WHERE a.job_id = NEW.job_id AND a.claim_no = NEW.claim_no AND a.worker_id = NEW.worker_id
              AND a.move <> 'rescue' LIMIT 1) IS NULL
    THEN
        RAISE EXCEPTION USING ERRCODE = 'PW001',
            MESSAGE = 'the completion of job ' || NEW.job_id || ' is not in this transaction: its claim ' || NEW.claim_no
                      || ' was lost, or the completion was rolled back to a savepoint',
            HINT = 'Nothing is committed. Whoever holds the job now runs it.';
    END IF;
    DELETE FROM guards g WHERE g.job_id = NEW.job_id AND g.claim_no = NEW.claim_no;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER guard AFTER INSERT ON /*schema.*/guards
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION /*schema.*/check_guard();

-- The time that tests turn by hand; empty everywhere else. Due times go by it, liveness and the history never do.
CREATE TABLE /*schema.*/clock (
    one boolean     PRIMARY KEY DEFAULT true CHECK (one),
    now timestamptz NOT NULL
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

INSERT INTO /*schema.*/duties (name, every) VALUES ('partitions', '1 hour'), ('concurrency_keys', '10 seconds');
-- Who keeps dead rows from being removed; there are none in the first minute.
INSERT INTO /*schema.*/duties (name, every, next_at) VALUES ('horizon', '1 minute', clock_timestamp() + interval '1 minute');
