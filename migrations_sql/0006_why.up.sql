-- pgq 0006: why a task is not running.

INSERT INTO pgq_schema (version) VALUES (6) ON CONFLICT DO NOTHING;

-- A length of time in words: 12 s, 5 min, 3 h 10 min, 2 d 3 h.
CREATE OR REPLACE FUNCTION pgq_span(length interval) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN s < 90 THEN s || ' s'
                WHEN s < 5400 THEN round(s / 60.0) || ' min'
                WHEN s < 86400 THEN s / 3600 || ' h ' || s % 3600 / 60 || ' min'
                ELSE s / 86400 || ' d ' || s % 86400 / 3600 || ' h' END
      FROM (SELECT greatest(round(extract(epoch FROM length)), 0)::bigint) x (s)
$$;
COMMENT ON FUNCTION pgq_span IS 'A length of time in words.';

-- One row for any id, also one that is not there. It reads a few rows by their keys, the pools, and at most 10,000 entries
-- of the index of ready tasks for each of two counts; so a queue of millions costs no more than a short one.
-- STABLE, so that all it tells is of one moment.
CREATE OR REPLACE FUNCTION pgq_why(task uuid, OUT code text, OUT sentence text, OUT facts jsonb)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    at constant timestamptz := clock_timestamp();
    -- A pool writes its heartbeat every 5 seconds at least.
    alive constant timestamptz := at - interval '20 seconds';
    bound constant integer := 10000;
    q record;
    t record;
    pool record;
    last jsonb;
    whole integer;
    ahead bigint;
    others bigint;
    holder record;
    held record;
    before record;
    is_paused boolean;
    blocked text := '';
    -- Tasks of the queue that ended in a second, over the last five minutes that are added up.
    rate double precision;
    moment constant timestamptz := at;
BEGIN
    SELECT id, queue, priority, position, func, attempts, max_attempts, crashes, cancelled, run_after, remaining, parked,
           lock, worker, enqueued_at, NULL::text AS key
      INTO q FROM pgq_queue WHERE id = task;
    IF NOT FOUND THEN
        SELECT success, started, stopped, exception, func, queue, attempt_count INTO t FROM pgq_task WHERE id = task;
        IF NOT FOUND THEN
            code := 'unknown'; facts := '{}';
            sentence := 'There is no such task: its transaction has not committed, or was rolled back, or its result was not '
                        'kept.';
            RETURN;
        END IF;
        code := CASE WHEN t.success THEN 'succeeded' ELSE 'failed' END;
        facts := jsonb_build_object('func', t.func, 'queue', t.queue, 'attempts', t.attempt_count, 'started', t.started,
                                    'stopped', t.stopped, 'exception', t.exception);
        sentence := format('It %s %s ago, after %s%s.', code, pgq_span(at - t.stopped), pgq_span(t.stopped - t.started),
                           CASE WHEN NOT t.success THEN ', with ' || t.exception ELSE '' END);
        RETURN;
    END IF;
    is_paused := EXISTS (SELECT FROM pgq_lane l WHERE l.queue = q.queue AND l.paused);
    BEGIN
        SELECT history -> -1 INTO last FROM pgq_queue WHERE id = task;
    EXCEPTION WHEN insufficient_privilege THEN NULL;  -- An inspector does not see what went wrong (roles.sql).
    END;
    BEGIN
        SELECT key INTO q.key FROM pgq_queue WHERE id = task;
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END;
    facts := jsonb_build_object('func', q.func, 'queue', q.queue, 'priority', q.priority, 'attempts', q.attempts,
                                'max_attempts', q.max_attempts, 'enqueued_at', q.enqueued_at, 'paused', is_paused);

    IF q.lock IS NOT NULL THEN
        SELECT p.name, p.host, p.heartbeat, p.retry, w ->> 'pid' AS pid,
               w ->> 'task' = replace(task::text, '-', '') AS runs, w -> 'seconds' AS seconds
          INTO holder
          FROM pgq_worker p
         CROSS JOIN LATERAL jsonb_array_elements(CASE jsonb_typeof(p.workers) WHEN 'array' THEN p.workers ELSE '[]' END) w
         WHERE w ->> 'id' = replace(q.worker::text, '-', '')
         LIMIT 1;
        facts := facts || jsonb_build_object('since', q.lock, 'worker', q.worker, 'pool', holder.name, 'host', holder.host,
                                             'pid', holder.pid, 'attempt', q.attempts);
        IF holder.name IS NULL OR holder.heartbeat <= alive THEN
            code := 'lost';
            sentence := format('It was claimed by a worker that has not been heard of for %s: it runs elsewhere once the lease '
                               'of %s has run out, renewed %s ago.', pgq_span(at - coalesce(holder.heartbeat, q.lock)),
                               pgq_span(coalesce(holder.retry, 60) * interval '1 second'), pgq_span(at - q.lock));
        ELSIF q.cancelled THEN
            code := 'stopping';
            sentence := format('It is cancelled, and still runs on %s (%s, pid %s): its worker was told to stop it.', holder.name,
                               holder.host, holder.pid);
        ELSIF holder.runs THEN
            code := 'running';
            facts := facts || jsonb_build_object('seconds', holder.seconds);
            sentence := format('It runs on %s (%s, pid %s), attempt %s%s.', holder.name, holder.host, holder.pid, q.attempts,
                               CASE WHEN jsonb_typeof(holder.seconds) = 'number' THEN
                                   ', for ' || pgq_span((holder.seconds #>> '{}')::numeric * interval '1 second'
                                                        + (at - holder.heartbeat)) ELSE '' END);
        ELSE
            code := 'claimed';
            sentence := format('It is claimed by a worker of %s (%s, pid %s), which begins it, or has just ended it.', holder.name,
                               holder.host, holder.pid);
        END IF;
        RETURN;
    END IF;

    IF q.parked IS NOT NULL THEN
        code := 'parked'; facts := facts || jsonb_build_object('reason', q.parked);
        sentence := 'It is parked, since it cannot run as it is: ' || q.parked;
        RETURN;
    END IF;

    -- What keeps any task of its queue from being claimed.
    SELECT count(*) FILTER (WHERE serves) AS pools, count(*) AS all_pools,
           coalesce(sum(workers) FILTER (WHERE serves), 0) AS workers, coalesce(sum(busy) FILTER (WHERE serves), 0) AS busy
      INTO pool
      FROM (SELECT (p.queues IS NULL OR q.queue = ANY (p.queues))
                   AND (p.exclude_queues IS NULL OR q.queue <> ALL (p.exclude_queues)) AS serves,
                   (SELECT count(*) FROM jsonb_array_elements(listed) w) AS workers,
                   (SELECT count(*) FROM jsonb_array_elements(listed) w WHERE w ->> 'task' IS NOT NULL) AS busy
              FROM pgq_worker p
             CROSS JOIN LATERAL (SELECT CASE jsonb_typeof(p.workers) WHEN 'array' THEN p.workers ELSE '[]' END AS listed) x
             WHERE p.heartbeat > alive AND p.status NOT IN ('stopping', 'stopped')) each;
    facts := facts || jsonb_build_object('pools', pool.pools, 'workers', pool.workers, 'busy', pool.busy);
    IF is_paused THEN
        blocked := format(' Its queue %s is paused.', q.queue);
    ELSIF pool.all_pools = 0 THEN
        blocked := ' No pool is running.';
    ELSIF pool.pools = 0 THEN
        blocked := format(' No pool that runs serves its queue %s.', q.queue);
    END IF;

    IF q.cancelled THEN
        code := 'cancelled';
        sentence := 'It is cancelled: the upkeep of a pool ends it as failed, without running it, within a second.' || blocked;
    ELSIF q.remaining IS NOT NULL THEN
        -- Those that are left, of those that were: the finished ones are kept in the group that it is called with, if at all.
        BEGIN
            whole := q.remaining + (SELECT count(*) FROM (
                SELECT FROM pgq_task f
                 WHERE f."group" = ANY (ARRAY[(SELECT c.args ->> 0 FROM pgq_queue c WHERE c.id = task),
                                              replace(task::text, '-', '')])
                   AND f.options ->> 'collector' = replace(task::text, '-', '') LIMIT bound) done);
        EXCEPTION WHEN insufficient_privilege THEN NULL;
        END;
        code := 'others'; facts := facts || jsonb_build_object('remaining', q.remaining, 'of', whole);
        sentence := format('It waits for %s%s other tasks to end.%s', q.remaining, ' of ' || whole, blocked);
    ELSIF q.run_after IS NOT NULL AND jsonb_typeof(last) = 'object' AND last ? 'postponed' THEN
        code := 'unknown_function'; facts := facts || jsonb_build_object('run_after', q.run_after);
        sentence := format('The workers that claimed it do not know the function %s: it is offered again %s, for a while, and '
                           'then parked. Does an older release still run?%s', q.func,
                           CASE WHEN q.run_after > at THEN 'in ' || pgq_span(q.run_after - at) ELSE 'now' END, blocked);
    ELSIF q.run_after IS NOT NULL AND q.run_after > at THEN
        code := CASE WHEN q.attempts > 0 THEN 'retry' ELSE 'time' END;
        facts := facts || jsonb_build_object('run_after', q.run_after);
        sentence := format(CASE code WHEN 'retry' THEN 'Attempt %2$s begins at %1$s, in %3$s: the last one failed%4$s.'
                                     ELSE 'It waits for its time, %1$s, in %3$s.' END || blocked,
                           date_trunc('second', q.run_after), q.attempts + 1, pgq_span(q.run_after - at),
                           CASE WHEN jsonb_typeof(last) = 'object' THEN ' with ' || (last ->> 'exception') ELSE '' END);
    ELSIF is_paused THEN
        code := 'paused'; sentence := 'Its queue is paused: no worker claims from ' || q.queue || ' until it is resumed.';
    ELSIF pool.all_pools = 0 THEN
        code := 'no_pool'; sentence := 'No pool is running. Start one: manage.py pgq_worker.';
    ELSIF pool.pools = 0 THEN
        code := 'unserved';
        sentence := format('No pool that runs serves its queue %s. Start one: manage.py pgq_worker --queues %s.', q.queue, q.queue);
    ELSIF q.run_after IS NOT NULL THEN
        code := 'due'; facts := facts || jsonb_build_object('run_after', q.run_after);
        sentence := format('Its time came %s ago: upkeep makes it ready, once a second.', pgq_span(at - q.run_after));
    END IF;
    IF code IS NOT NULL THEN
        RETURN;
    END IF;

    BEGIN
    -- It is ready. Whether a limit holds it: of its queue, or of its key, whose name is the part before the first colon.
    -- Where the tasks of a key keep strictly their order, one runs at a time.
    SELECT l.scope, l.most AS concurrency, running.strands, rate.not_before,
           CASE l.scope WHEN 'queue' THEN 'its queue ' || q.queue ELSE 'its key ' || q.key END AS whose
      INTO held
      FROM (SELECT *, CASE WHEN strict AND scope = 'key' THEN least(coalesce(concurrency, 1), 1) ELSE concurrency END AS most
              FROM pgq_limit) l
     CROSS JOIN LATERAL (
           SELECT count(DISTINCT r.strand) AS strands
             FROM (SELECT strand FROM pgq_queue r
                    WHERE r.strand IS NOT NULL
                      AND CASE l.scope WHEN 'queue' THEN r.queue = q.queue ELSE r.key = q.key END
                    LIMIT bound) r) running
      LEFT JOIN pgq_rate rate ON rate.scope = l.scope AND rate.not_before > at AND rate.limited_at = l.updated_at
                             AND rate.name = CASE l.scope WHEN 'queue' THEN q.queue ELSE q.key END
     WHERE (l.scope, l.name) IN (('queue', q.queue), ('key', split_part(q.key, ':', 1)))
       AND (running.strands >= l.most OR l.rate = 0 OR rate.not_before IS NOT NULL)
     ORDER BY running.strands >= l.most DESC NULLS LAST
     LIMIT 1;
    EXCEPTION WHEN insufficient_privilege THEN held := NULL;
    END;
    -- The limit tells the order, too: of a strict key another attempt, or a parked task, holds back those behind it.
    IF held.scope IS NULL AND q.key IS NOT NULL THEN
        BEGIN
            SELECT b.id, b.run_after, b.parked IS NOT NULL AS is_parked, b.attempts + 1 AS attempt
              INTO before
              FROM pgq_queue b
             WHERE b.key = q.key AND b.attempts > 0 AND (b.run_after IS NOT NULL OR b.parked IS NOT NULL) AND b.id <> task
               AND EXISTS (SELECT FROM pgq_limit l WHERE l.scope = 'key' AND l.name = split_part(q.key, ':', 1) AND l.strict)
             ORDER BY b.run_after DESC NULLS FIRST
             LIMIT 1;
        EXCEPTION WHEN insufficient_privilege THEN before := NULL;
        END;
        IF before.id IS NOT NULL THEN
            code := 'held';
            facts := facts || jsonb_build_object('key', q.key, 'limit', 'key', 'order', 'strict',
                                                 'before', replace(before.id::text, '-', ''), 'run_after', before.run_after);
            sentence := format('It is ready, and held by the strict order of its key %s: %s before it ', q.key,
                               replace(before.id::text, '-', ''))
                        || CASE WHEN before.is_parked THEN 'is parked.'
                                ELSE format('waits for attempt %s, in %s.', before.attempt, pgq_span(before.run_after - at)) END;
            RETURN;
        END IF;
    END IF;
    IF held.scope IS NOT NULL THEN
        code := 'held';
        facts := facts || jsonb_build_object('key', q.key, 'limit', held.scope, 'concurrency', held.concurrency,
                                             'limited', held.strands, 'not_before', held.not_before);
        sentence := format('It is ready, and held by the limit of %s: ', held.whose)
                    || CASE WHEN held.strands >= held.concurrency THEN format('%s of %s run.', held.strands, held.concurrency)
                            WHEN held.not_before IS NOT NULL THEN format('the next may start in %s.', pgq_span(held.not_before - at))
                            ELSE 'none may start.' END;
        RETURN;
    END IF;

    -- How many go before it in its queue, or of its key, and how many of a higher priority in other queues or of other keys.
    -- Keys of a queue take turns, so those of other keys are not counted, unless their priority is higher: those come first,
    -- in any queue, but for those that a limit holds, which are counted all the same.
    IF q.key IS NULL THEN
        SELECT count(*) INTO ahead
          FROM (SELECT FROM pgq_lane l
                 CROSS JOIN LATERAL (
                       SELECT FROM pgq_queue r
                        WHERE r.queue = l.queue AND r.priority = l.priority AND r.position > l.low
                          AND r.position < CASE WHEN l.priority = q.priority THEN q.position ELSE 9223372036854775807 END
                          AND r.lock IS NULL AND r.run_after IS NULL AND r.parked IS NULL AND r.remaining IS NULL
                          AND r.key IS NULL
                        ORDER BY r.position LIMIT bound) r
                 WHERE l.queue = q.queue AND l.priority >= q.priority
                 LIMIT bound) x;
    ELSE
        facts := facts || jsonb_build_object('key', q.key);
        SELECT count(*) INTO ahead
          FROM (SELECT FROM pgq_queue r
                 WHERE r.queue = q.queue AND r.key = q.key AND r.priority >= q.priority
                   AND (r.priority > q.priority OR r.position < q.position)
                   AND r.lock IS NULL AND r.run_after IS NULL AND r.parked IS NULL AND r.remaining IS NULL
                   AND r.key IS NOT NULL
                 LIMIT bound) x;
    END IF;
    SELECT count(*) INTO others
      FROM (SELECT FROM pgq_lane l
             CROSS JOIN LATERAL (
                   SELECT FROM pgq_queue r
                    WHERE r.queue = l.queue AND r.priority = l.priority AND r.position > l.low
                      AND r.lock IS NULL AND r.run_after IS NULL AND r.parked IS NULL AND r.remaining IS NULL AND r.key IS NULL
                    ORDER BY r.position LIMIT bound) r
             WHERE l.queue <> q.queue AND l.priority > q.priority
               AND NOT EXISTS (SELECT FROM pgq_lane o WHERE o.queue = l.queue AND o.paused)
             LIMIT bound) x;
    SELECT others + count(*) INTO others
      FROM (SELECT FROM pgq_keyed l
             CROSS JOIN LATERAL (
                   SELECT FROM pgq_queue r
                    WHERE r.queue = l.queue AND r.key = l.key AND r.priority = l.priority AND r.position > l.low
                      AND r.lock IS NULL AND r.run_after IS NULL AND r.parked IS NULL AND r.remaining IS NULL
                      AND r.key IS NOT NULL
                    ORDER BY r.position LIMIT bound) r
             WHERE l.idle_since IS NULL AND l.priority > q.priority
               AND (q.key IS NULL OR (l.queue, l.key) <> (q.queue, q.key))
               AND NOT EXISTS (SELECT FROM pgq_lane o WHERE o.queue = l.queue AND o.paused)
             LIMIT greatest(bound - others, 0)) x;
    facts := facts || jsonb_build_object('ahead', ahead, 'ahead_exact', ahead < bound, 'ahead_elsewhere', others,
                                         'ahead_elsewhere_exact', others < bound);
    code := CASE WHEN ahead > 0 OR others > 0 THEN 'behind' WHEN pool.busy >= pool.workers THEN 'busy' ELSE 'next' END;
    -- When its turn comes, at the present rate; not where that is not known, or others come first that are not counted, or of
    -- keys, which have rates of their own.
    IF code = 'behind' AND q.key IS NULL AND ahead < bound AND others = 0 THEN
        BEGIN
            SELECT sum(succeeded + failed + cancelled + timed_out + discarded) / 300.0 INTO rate
              FROM pgq_metric
             WHERE span = 1 AND queue = left(q.queue, 200)
               AND pgq_metric.at >= date_trunc('minute', moment - interval '30 s') - interval '5 min'
               AND pgq_metric.at < date_trunc('minute', moment - interval '30 s');
        EXCEPTION WHEN insufficient_privilege THEN NULL;
        END;
        IF rate > 0 THEN
            facts := facts || jsonb_build_object('rate', round(rate::numeric, 2), 'eta_seconds', ceil((ahead + 1) / rate));
        END IF;
    END IF;
    sentence := CASE code
        WHEN 'behind' THEN
            concat_ws(', and ',
                CASE WHEN ahead > 0 THEN format('behind %s%s other tasks of its %s', ahead,
                                                CASE WHEN ahead >= bound THEN ' or more' ELSE '' END,
                                                CASE WHEN q.key IS NULL THEN 'queue' ELSE 'key' END) END,
                CASE WHEN others > 0 THEN format('behind %s%s of a higher priority in other queues or of other keys', others,
                                                 CASE WHEN others >= bound THEN ' or more' ELSE '' END) END)
        WHEN 'busy' THEN 'the next one of its ' || CASE WHEN q.key IS NULL THEN 'queue' ELSE 'key' END
        ELSE format('the next one of its %s, and a worker is free', CASE WHEN q.key IS NULL THEN 'queue' ELSE 'key' END) END;
    IF facts ? 'eta_seconds' THEN
        sentence := format('%s, about %s at the rate of the last minutes', sentence,
                           pgq_span((facts ->> 'eta_seconds')::numeric * interval '1 second'));
    END IF;
    sentence := format('It is ready, %s; %s of %s workers that serve the queue are busy.', sentence, pool.busy, pool.workers);
END
$$;
COMMENT ON FUNCTION pgq_why IS
    'Why a task is not running, or what became of it: a code, a sentence, and the facts behind it. One row for any id.';

DO $$
BEGIN
    PERFORM pgq_pin_search_path();
END
$$;
