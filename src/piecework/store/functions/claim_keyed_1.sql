-- Claim due jobs with a concurrency key, lane by lane: of each key as many as its limit leaves room for, the first ones in the
-- order (priority, run_at, id) of all that are due. What cannot run is parked, so that it is not looked at again
-- (invariant A). Keys that another transaction has in hand are skipped.
-- params:  $1 worker uuid, $2 queues text[], $3 job_types text[], $4 priorities smallint[], $5 counts integer[], $6 most integer,
--          $7 beyond integer (how many more candidates of each lane are looked at than asked for: as those in front may be locked)
-- raises:  no_data_found when the worker is not registered, or was given up for dead
-- returns: text: null when no lane has a due job, else JSON array of null or a JSON array as of functions/claim_1.sql, and
--          boolean, whether there may be more to claim, and how many candidates were passed over since others hold their rows
CREATE OR REPLACE FUNCTION /*schema.*/claim_keyed_1(
    p_worker uuid, p_queues text[], p_job_types text[], p_priorities smallint[], p_counts integer[], p_most integer,
    p_beyond integer
) RETURNS text
LANGUAGE plpgsql
SET search_path = /*schema*/, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    v_now timestamptz := coalesce((SELECT c.now FROM clock c WHERE c.one), clock_timestamp());
    v_limited boolean;
    v_ids uuid[];
    v_queues text[];
    v_keys text[];
    v_held_queues text[];
    v_held_keys text[];
    v_running integer[];
    v_startable uuid[];
    v_taken uuid[];
    v_claimed json;
    v_parked integer;
    v_passed integer;
BEGIN
    -- As in claim_1.
    PERFORM FROM workers w WHERE w.id = p_worker AND w.given_up_at IS NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE no_data_found USING MESSAGE = 'worker ' || p_worker || ' was given up for dead';
    END IF;

    -- Candidates, not locked: each key is decided upon under its lock.
    SELECT array_agg(due.id), array_agg(due.queue), array_agg(due.concurrency_key) INTO v_ids, v_queues, v_keys
    FROM (
        SELECT due.* FROM unnest(p_queues, p_job_types, p_priorities, p_counts) AS lane (queue, job_type, priority, count)
        CROSS JOIN LATERAL (
            SELECT j.id, j.queue, j.concurrency_key FROM jobs j
            WHERE j.queue = lane.queue AND j.job_type = lane.job_type AND j.priority = lane.priority AND j.run_at <= v_now
              AND j.worker_id IS NULL AND NOT j.parked AND j.concurrency_key IS NOT NULL
            ORDER BY j.run_at, j.id LIMIT lane.count + p_beyond) AS due
        LIMIT p_most + p_beyond) AS due;
    IF v_ids IS NULL THEN
        RETURN NULL;
    END IF;

    INSERT INTO concurrency_keys (queue, concurrency_key)
    SELECT DISTINCT u.queue, u.key FROM unnest(v_queues, v_keys) AS u (queue, key) ORDER BY u.queue, u.key
    ON CONFLICT DO NOTHING;
    -- In one order everywhere, keys before jobs (invariant D). What is answered is the row as it was locked.
    SELECT array_agg(held.queue), array_agg(held.concurrency_key), array_agg(cardinality(held.running))
    INTO v_held_queues, v_held_keys, v_running
    FROM (
        SELECT k.* FROM (
            SELECT DISTINCT u.queue, u.key FROM unnest(v_queues, v_keys) AS u (queue, key) ORDER BY u.queue, u.key) AS u
        CROSS JOIN LATERAL (
            SELECT k.queue, k.concurrency_key, k.running FROM concurrency_keys k
            WHERE k.queue = u.queue AND k.concurrency_key = u.key FOR NO KEY UPDATE SKIP LOCKED) AS k) AS held;
    IF v_held_keys IS NULL THEN
        RETURN json_build_array(NULL, true, 0)::text;
    END IF;

    -- Statements of their own, so that they see what was committed before the locks were granted: limits, too, and who is
    -- next in line. The operators' limit counts before that of the job. What stands first in its key and is of a lane that
    -- may not give more, or of a type that this worker does not run, stays where it is.
    v_limited := EXISTS (SELECT FROM limits WHERE scope = 'concurrency_key');
    WITH startable AS MATERIALIZED (
        SELECT j.* FROM unnest(v_held_queues, v_held_keys, v_running) AS k (queue, key, running)
        CROSS JOIN LATERAL (
            SELECT greatest(coalesce(
                CASE WHEN v_limited THEN concurrency_limit_1(k.queue, k.key) END,
                (SELECT j.concurrency_limit FROM jobs j
                 WHERE j.queue = k.queue AND j.concurrency_key = k.key AND j.worker_id IS NULL AND j.run_at <= v_now
                 ORDER BY j.priority, j.run_at, j.id LIMIT 1), 1) - k.running, 0) AS count) AS room
        CROSS JOIN LATERAL (
            SELECT j.id, j.queue, j.job_type, j.priority, j.run_at FROM jobs j
            WHERE j.queue = k.queue AND j.concurrency_key = k.key AND j.worker_id IS NULL AND j.run_at <= v_now
            ORDER BY j.priority, j.run_at, j.id LIMIT room.count FOR UPDATE SKIP LOCKED) AS j),
    ranked AS (
        SELECT s.id, lane.count, row_number() OVER w AS rank
        FROM startable s JOIN unnest(p_queues, p_job_types, p_priorities, p_counts) AS lane (queue, job_type, priority, count)
            ON lane.queue = s.queue AND lane.job_type = s.job_type AND lane.priority = s.priority
        WINDOW w AS (PARTITION BY s.queue, s.job_type, s.priority ORDER BY s.run_at, s.id))
    SELECT (SELECT array_agg(s.id) FROM startable s),
           ARRAY(SELECT r.id FROM ranked r WHERE r.rank <= r.count ORDER BY r.rank, r.id LIMIT p_most)
    INTO v_startable, v_taken;

    IF cardinality(v_taken) > 0 THEN
        WITH claimed AS (
            UPDATE jobs SET worker_id = p_worker, claim_no = claim_no + 1, claimed_at = clock_timestamp(), parked = false
            WHERE id = ANY (v_taken) RETURNING *),
        -- No UPDATE ... FROM: the planner would walk all keys in use, should it think that they are few. A job that went on
        -- in a user's transaction may stand among the holders still, until its worker hands the key on.
        holding AS (
            INSERT INTO concurrency_keys AS k (queue, concurrency_key, running)
            SELECT c.queue, c.concurrency_key, array_agg(c.id) FROM claimed c GROUP BY 1, 2 ORDER BY 1, 2
            ON CONFLICT (queue, concurrency_key) DO UPDATE SET
                running = ARRAY(SELECT r FROM unnest(k.running) AS r WHERE r <> ALL (excluded.running)) || excluded.running)
        SELECT json_agg(json_build_array(
                   c.id, c.claim_no, c.job_type, c.queue, c.priority, (date_part('epoch', c.run_at) * 1000000)::bigint,
                   c.attempt, c.failures, c.crashes, c.config, c.concurrency_key, c.trace_context,
                   (date_part('epoch', c.created_at) * 1000000)::bigint,
                   (SELECT s.state FROM execution_states s WHERE s.job_id = c.id),
                   (SELECT s.state FROM execution_states s WHERE s.job_type = c.job_type AND s.key = c.key)))
        INTO v_claimed FROM claimed c;
    END IF;

    -- A parked row implies that its key is full, or that a sibling before it is not parked (A2).
    WITH late AS MATERIALIZED (
        -- Of the keys in hand alone: whoever has another one would pass over a row that is locked here.
        SELECT u.id FROM unnest(v_ids, v_queues, v_keys) AS u (id, queue, key)
        WHERE u.id <> ALL (coalesce(v_startable, '{}'))
          AND (u.queue, u.key) IN (SELECT * FROM unnest(v_held_queues, v_held_keys))),
    parked AS (
        UPDATE jobs SET parked = true WHERE ctid = ANY (ARRAY(
            SELECT locked.tid FROM (SELECT l.id FROM late l ORDER BY l.id) AS l
            CROSS JOIN LATERAL (
                SELECT j.ctid AS tid FROM jobs j
                WHERE j.id = l.id AND j.worker_id IS NULL AND NOT j.parked FOR UPDATE SKIP LOCKED) AS locked))
        RETURNING 1)
    SELECT (SELECT count(*) FROM parked), (SELECT count(*) FROM late) INTO v_parked, v_passed;
    v_passed := v_passed - v_parked;
    PERFORM drop_unused_keys_1(v_held_queues, v_held_keys);
    -- Candidates that were neither claimed nor parked stand first in a key that has room: another worker's, or for later. Or
    -- they are locked: then others may stand behind them that were not looked at.
    RETURN json_build_array(
        v_claimed,
        v_parked > 0 OR cardinality(v_taken) > 0 OR v_passed * 2 > p_beyond OR cardinality(v_held_keys) < (
            SELECT count(*) FROM (SELECT DISTINCT u.queue, u.key FROM unnest(v_queues, v_keys) AS u (queue, key)) AS d),
        v_passed)::text;
END
$$;
