-- Claim due jobs with a concurrency key, lane by lane: of each key as many as its limit leaves room for, the first ones in the
-- order (priority, run_at, id) of all that are due; of a key that nobody holds also those right behind them, for the same
-- worker to run one after the other (a chain). What cannot run is parked, so that it is not looked at again (invariant A).
-- Keys that another transaction has in hand are skipped.
-- params:  $1 worker uuid, $2 queues text[], $3 job_types text[], $4 priorities smallint[], $5 counts integer[],
--          $6 chains integer[] (how many jobs of a key at most from each lane; 1, or below its limit: no chain),
--          $7 most integer, $8 chained integer (how many jobs in all besides, in chains), $9 beyond integer (how many more
--          candidates of each lane are looked at: as those in front may be locked)
-- raises:  no_data_found when the worker is not registered, or was given up for dead
-- returns: text: null when no lane has a due job, else JSON array of null or a JSON array as of functions/claim_1.sql, and
--          boolean, whether there may be more to claim, how many candidates were passed over since others hold their rows, and
--          null or array of [queue, concurrency key, how many may run at once] of the keys where that is more than 1
CREATE OR REPLACE FUNCTION /*schema.*/claim_keyed_1(
    p_worker uuid, p_queues text[], p_job_types text[], p_priorities smallint[], p_counts integer[], p_chains integer[],
    p_most integer, p_chained integer, p_beyond integer
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
    v_stateful boolean;
    v_longest integer := CASE WHEN p_chained > 0 THEN (SELECT max(c) FROM unnest(p_chains) AS c) ELSE 0 END;
    -- Candidates.
    v_ids uuid[];
    v_queues text[];
    v_keys text[];
    v_many boolean;
    -- Keys: those that are wanted, with the first candidate of each, and those of these that have more; those that are new,
    -- and all that are in hand, in the same places, with how many hold each.
    v_wanted_queues text[];
    v_wanted_keys text[];
    v_firsts uuid[];
    v_more uuid[];
    v_made_rows tid[];
    v_made_queues text[];
    v_made_keys text[];
    v_guesses uuid[];
    v_held_rows tid[];
    v_held_queues text[];
    v_held_keys text[];
    v_held_running integer[];
    -- Jobs: those that are next in their key; those that are taken, with the rows and with the places of their keys above.
    v_startable uuid[];
    v_taken uuid[];
    v_taken_rows tid[];
    v_taken_keys integer[];
    v_taken_places integer[];
    v_places json;
    v_claimed json;
    v_behind integer := 0;
    v_idle_rows tid[];
    v_idle_guesses uuid[];
    v_parked integer := 0;
    v_passed integer := 0;
BEGIN
    -- As in claim_1.
    PERFORM FROM workers w WHERE w.id = p_worker AND w.given_up_at IS NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE no_data_found USING MESSAGE = 'worker ' || p_worker || ' was given up for dead';
    END IF;

    -- Candidates, not locked: each key is decided upon under its lock.
    SELECT array_agg(due.id), array_agg(due.queue), array_agg(due.concurrency_key) INTO v_ids, v_queues, v_keys
    FROM (
        SELECT due.* FROM unnest(p_queues, p_job_types, p_priorities, p_counts, p_chains)
            AS lane (queue, job_type, priority, count, chain)
        CROSS JOIN LATERAL (
            SELECT j.id, j.queue, j.concurrency_key FROM jobs j
            WHERE j.queue = lane.queue AND j.job_type = lane.job_type AND j.priority = lane.priority AND j.run_at <= v_now
              AND j.worker_id IS NULL AND NOT j.parked AND j.concurrency_key IS NOT NULL
            ORDER BY j.run_at, j.id LIMIT least(lane.count * lane.chain, greatest(p_most, p_chained)) + p_beyond) AS due
        LIMIT greatest(p_most, p_chained) + p_beyond) AS due;
    IF v_ids IS NULL THEN
        RETURN NULL;
    END IF;

    -- Where chains are likely, more keys may have candidates than can be taken: of those that nobody seems to hold the first
    -- ones are enough, and unless these are few the others are not locked, so that settles of theirs need not wait.
    v_many := p_chained > 0 AND p_most < cardinality(v_ids);
    SELECT array_agg(w.queue ORDER BY w.queue, w.key), array_agg(w.key ORDER BY w.queue, w.key),
           array_agg(v_ids[w.position] ORDER BY w.queue, w.key), array_agg(v_ids[w.position]) FILTER (WHERE w.count > 1)
    INTO v_wanted_queues, v_wanted_keys, v_firsts, v_more
    FROM (
        SELECT d.*, row_number() OVER (PARTITION BY d.busy ORDER BY d.position) AS rank,
               sum(d.count) FILTER (WHERE NOT d.busy) OVER () AS free
        FROM (
            SELECT u.queue, u.key, min(u.position) AS position, count(*) AS count,
                   v_many AND coalesce((SELECT k.running <> '{}' FROM concurrency_keys k
                                        WHERE k.queue = u.queue AND k.concurrency_key = u.key LIMIT 1), false) AS busy
            FROM unnest(v_queues, v_keys) WITH ORDINALITY AS u (queue, key, position) GROUP BY 1, 2) AS d) AS w
    WHERE CASE WHEN w.busy THEN coalesce(w.free, 0) * 4 < cardinality(v_ids) ELSE NOT v_many OR w.rank <= p_most END;

    -- In one order everywhere, keys before jobs (invariant D). Most new keys have one job, which will be taken.
    WITH made AS (
        INSERT INTO concurrency_keys (queue, concurrency_key, running)
        SELECT u.queue, u.key, ARRAY[u.first] FROM unnest(v_wanted_queues, v_wanted_keys, v_firsts) AS u (queue, key, first)
        ON CONFLICT DO NOTHING RETURNING ctid AS tid, queue, concurrency_key, running[1] AS guess)
    SELECT array_agg(m.tid), array_agg(m.queue), array_agg(m.concurrency_key), array_agg(m.guess),
           array_agg(0)
    INTO v_made_rows, v_made_queues, v_made_keys, v_guesses, v_held_running FROM made m;
    v_held_rows := v_made_rows;
    v_held_queues := v_made_queues;
    v_held_keys := v_made_keys;
    IF coalesce(cardinality(v_made_rows), 0) < cardinality(v_wanted_keys) THEN
        -- What is answered is the row as it was locked.
        SELECT v_held_rows || array_agg(held.tid), v_held_queues || array_agg(held.queue),
               v_held_keys || array_agg(held.concurrency_key), v_held_running || array_agg(cardinality(held.running))
        INTO v_held_rows, v_held_queues, v_held_keys, v_held_running
        FROM (
            SELECT k.* FROM unnest(v_wanted_queues, v_wanted_keys) AS u (queue, key)
            CROSS JOIN LATERAL (
                SELECT k.ctid AS tid, k.queue, k.concurrency_key, k.running FROM concurrency_keys k
                WHERE k.queue = u.queue AND k.concurrency_key = u.key FOR NO KEY UPDATE SKIP LOCKED) AS k
            WHERE (u.queue, u.key) NOT IN (SELECT m.queue, m.key FROM unnest(v_made_queues, v_made_keys) AS m (queue, key))
        ) AS held;
        IF v_held_rows IS NULL THEN
            RETURN json_build_array(NULL, true, 0, NULL)::text;
        END IF;
    END IF;

    -- Statements of their own, so that they see what was committed before the locks were granted: limits, too, and who is
    -- next in line. The operators' limit counts before that of the job. What stands first in its key and is of a lane that
    -- may not give more, or of a type that this worker does not run, stays where it is.
    v_limited := EXISTS (SELECT FROM limits WHERE scope = 'concurrency_key');
    v_stateful := EXISTS (SELECT FROM execution_states);
    WITH startable AS MATERIALIZED (
        SELECT j.*, k.number, room.count AS places
        FROM unnest(v_held_queues, v_held_keys, v_held_running) WITH ORDINALITY AS k (queue, key, running, number)
        CROSS JOIN LATERAL (
            SELECT greatest(coalesce(
                CASE WHEN v_limited THEN concurrency_limit_1(k.queue, k.key) END,
                (SELECT j.concurrency_limit FROM jobs j
                 WHERE j.queue = k.queue AND j.concurrency_key = k.key AND j.worker_id IS NULL AND j.run_at <= v_now
                 ORDER BY j.priority, j.run_at, j.id LIMIT 1), 1) - k.running, 0) AS count) AS room
        CROSS JOIN LATERAL (
            SELECT j.ctid AS tid, j.id, j.queue, j.job_type, j.priority, j.run_at FROM jobs j
            WHERE j.queue = k.queue AND j.concurrency_key = k.key AND j.worker_id IS NULL AND j.run_at <= v_now
            ORDER BY j.priority, j.run_at, j.id LIMIT room.count FOR UPDATE SKIP LOCKED) AS j),
    ranked AS (
        SELECT s.tid, s.id, s.number, s.places, lane.count, row_number() OVER w AS rank
        FROM startable s JOIN unnest(p_queues, p_job_types, p_priorities, p_counts) AS lane (queue, job_type, priority, count)
            ON lane.queue = s.queue AND lane.job_type = s.job_type AND lane.priority = s.priority
        WINDOW w AS (PARTITION BY s.queue, s.job_type, s.priority ORDER BY s.run_at, s.id))
    SELECT (SELECT array_agg(s.id) FROM startable s),
           array_agg(r.id), array_agg(r.tid), array_agg(r.number::integer), array_agg(r.places)
    INTO v_startable, v_taken, v_taken_rows, v_taken_keys, v_taken_places
    FROM (SELECT r.* FROM ranked r WHERE r.rank <= r.count ORDER BY r.rank, r.id LIMIT p_most) AS r;

    -- Chains: of one lane and one limit, without a job between them. What was lost with a worker runs alone, as it may be what
    -- kills workers. Of a new key no sibling is looked for that was no candidate, but for the first few.
    IF v_longest > 1 AND v_taken IS NOT NULL THEN
        WITH heads AS (
            SELECT t.number, min(t.position) AS position, count(*) AS count, min(j.queue) AS queue, min(j.key) AS key,
                   min(j.job_type) AS job_type, min(j.priority) AS priority, min(j.most) AS most,
                   (array_agg(j.run_at ORDER BY j.run_at DESC, j.id DESC))[1] AS run_at,
                   (array_agg(j.id ORDER BY j.run_at DESC, j.id DESC))[1] AS id
            FROM unnest(v_taken_rows, v_taken_keys, v_taken_places) WITH ORDINALITY AS t (tid, number, places, position)
            CROSS JOIN LATERAL (
                SELECT j.id, j.queue, j.concurrency_key AS key, j.job_type, j.priority, j.run_at, j.crashes,
                       coalesce(j.concurrency_limit, 1) AS most FROM jobs j WHERE j.ctid = t.tid LIMIT 1) AS j
            WHERE v_held_running[t.number] = 0
              AND (t.position <= 25 OR v_guesses[t.number] IS NULL OR v_guesses[t.number] IN (SELECT m FROM unnest(v_more) AS m))
            GROUP BY t.number
            HAVING count(*) = min(t.places) AND max(j.crashes) = 0 AND min(j.job_type) = max(j.job_type)
               AND min(j.priority) = max(j.priority) AND min(j.most) = max(j.most)),
        behind AS (
            SELECT j.*, h.number FROM (
                SELECT h.*, (SELECT lane.chain FROM unnest(p_queues, p_job_types, p_priorities, p_chains)
                                 AS lane (queue, job_type, priority, chain)
                             WHERE lane.queue = h.queue AND lane.job_type = h.job_type AND lane.priority = h.priority
                             ) - h.count AS room
                FROM heads h ORDER BY h.position) AS h
            CROSS JOIN LATERAL (
                SELECT j.ctid AS tid, j.id, j.run_at,
                       j.job_type = h.job_type AND j.crashes = 0 AND coalesce(j.concurrency_limit, 1) = h.most AS alike
                FROM jobs j
                WHERE j.queue = h.queue AND j.concurrency_key = h.key AND j.priority = h.priority
                  AND (j.run_at, j.id) > (h.run_at, h.id) AND j.worker_id IS NULL AND j.run_at <= v_now
                ORDER BY j.run_at, j.id LIMIT greatest(h.room, 0) FOR UPDATE SKIP LOCKED) AS j
            LIMIT p_chained)
        SELECT v_taken || array_agg(b.id), v_taken_rows || array_agg(b.tid), v_taken_keys || array_agg(b.number), count(*)
        INTO v_taken, v_taken_rows, v_taken_keys, v_behind
        FROM (SELECT b.*, bool_and(b.alike) OVER (PARTITION BY b.number ORDER BY b.run_at, b.id) AS goes_on FROM behind b) AS b
        WHERE b.goes_on;
    END IF;
    v_places := (
        SELECT json_agg(json_build_array(v_held_queues[m.number], v_held_keys[m.number], m.places))
        FROM (SELECT t.number, min(t.places) AS places FROM unnest(v_taken_keys, v_taken_places) AS t (number, places)
              GROUP BY t.number HAVING min(t.places) > 1 AND count(*) > 1) AS m);

    IF v_taken IS NOT NULL THEN
        -- A job that went on in a user's transaction may stand among the holders still, until its worker hands the key on.
        WITH claimed AS (
            UPDATE jobs SET worker_id = p_worker, claim_no = claim_no % 2147483647 + 1, claimed_at = clock_timestamp(),
                parked = false
            WHERE ctid = ANY (v_taken_rows)
            RETURNING id, claim_no, job_type, queue, priority, run_at, attempt, failures, crashes, config, concurrency_key,
                      key, trace_context, created_at),
        holding AS (
            UPDATE concurrency_keys k SET
                running = ARRAY(SELECT r FROM unnest(k.running) AS r
                                WHERE r <> ALL (t.ids) AND r IS DISTINCT FROM v_guesses[t.number]) || t.ids
            FROM (SELECT t.number, array_agg(t.id) AS ids
                  FROM unnest(v_taken, v_taken_keys) AS t (id, number) GROUP BY 1) AS t
            WHERE k.ctid = v_held_rows[t.number] AND k.running <> t.ids)
        SELECT json_agg(CASE WHEN c.trace_context IS NULL AND NOT (v_stateful AND (c.claim_no > 1 OR c.key IS NOT NULL))
            THEN json_build_array(
                c.id, c.claim_no, c.job_type, c.queue, c.priority,
                (date_part('epoch', greatest(c.run_at, timestamptz '0001-01-02 00:00+00')) * 1000000)::bigint,
                c.attempt, c.failures, c.crashes, c.config, c.concurrency_key)
            ELSE json_build_array(
                c.id, c.claim_no, c.job_type, c.queue, c.priority,
                (date_part('epoch', greatest(c.run_at, timestamptz '0001-01-02 00:00+00')) * 1000000)::bigint,
                c.attempt, c.failures, c.crashes, c.config, c.concurrency_key, c.trace_context,
                (date_part('epoch', least(greatest(c.created_at, timestamptz '0001-01-02 00:00+00'),
                                          timestamptz '9999-12-31 00:00+00')) * 1000000)::bigint,
                (SELECT s.state FROM execution_states s WHERE s.job_id = c.id),
                (SELECT s.state FROM execution_states s WHERE s.job_type = c.job_type AND s.key = c.key))
            END)
        INTO v_claimed FROM claimed c;
    END IF;

    -- A parked row implies that its key is full, or that a sibling before it is not parked (A2). Where a chain was taken, most
    -- of what stands in the way will be taken soon as well, and to park it would only be one more write.
    IF v_behind * 20 < cardinality(v_ids) THEN
        WITH late AS MATERIALIZED (
            -- Of the keys in hand alone: whoever has another one would pass over a row that is locked here.
            SELECT u.id FROM unnest(v_ids, v_queues, v_keys) AS u (id, queue, key)
            WHERE u.id NOT IN (SELECT s FROM unnest(v_startable) AS s) AND u.id NOT IN (SELECT t FROM unnest(v_taken) AS t)
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
    END IF;
    -- Those keys of which nothing runs: what was made for them goes.
    SELECT array_agg(v_held_rows[n]), array_agg(v_guesses[n]) FILTER (WHERE v_guesses[n] IS NOT NULL)
    INTO v_idle_rows, v_idle_guesses FROM generate_subscripts(v_held_rows, 1) AS n
    WHERE v_held_running[n] = 0 AND n NOT IN (SELECT t FROM unnest(v_taken_keys) AS t);
    PERFORM free_keys_1(v_idle_rows, v_idle_guesses, true);
    -- Candidates that were neither claimed nor parked stand first in a key that has room: another worker's, or for later. Or
    -- they are locked: then others may stand behind them that were not looked at.
    RETURN json_build_array(
        v_claimed,
        v_parked > 0 OR v_taken IS NOT NULL OR v_passed * 2 > p_beyond
            OR cardinality(v_held_rows) < (
                SELECT count(*) FROM (SELECT DISTINCT u.queue, u.key FROM unnest(v_queues, v_keys) AS u (queue, key)) AS d),
        v_passed, v_places)::text;
END
$$;
