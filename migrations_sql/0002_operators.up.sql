-- pgq 0002: views to read and functions to act with, for psql, the admin and the commands alike.

-- If a long transaction holds one of pgq's tables, give up: all other sessions would queue behind this statement.
SET LOCAL lock_timeout = '2s';

INSERT INTO pgq_schema (version) VALUES (2) ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION pgq_enqueue(
    func text, args jsonb DEFAULT '[]', kwargs jsonb DEFAULT '{}', queue text DEFAULT 'default',
    priority smallint DEFAULT 0, run_after timestamptz DEFAULT NULL, name text DEFAULT NULL,
    max_attempts integer DEFAULT 1, timeout double precision DEFAULT NULL, key text DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    -- Not RETURNING, which needs the right to read the table: a producer has none (see roles.sql).
    task uuid := pgq_uuid7();
BEGIN
    INSERT INTO pgq_queue (id, func, args, kwargs, queue, priority, run_after, name, max_attempts, timeout, key)
    VALUES (task, func, args, kwargs, queue, priority, CASE WHEN run_after > clock_timestamp() THEN run_after END, name,
            max_attempts, timeout, key);
    RETURN task;
END
$$;
COMMENT ON FUNCTION pgq_enqueue IS 'Enqueues a task; func must be registered with @task. Returns its id.';

-- A task that does not run ends here, in the caller's transaction, if nothing else has to be made for it: a hook, the next
-- link of a chain and a collector belong to Python, which alone can sign and verify them. A task that has one becomes ready
-- as cancelled: upkeep, or the worker that claims it, ends it within a moment, also if its queue is paused.
CREATE OR REPLACE FUNCTION pgq_cancel(task uuid) RETURNS text
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    held pgq_queue;
BEGIN
    SELECT * INTO held FROM pgq_queue q WHERE q.id = task FOR UPDATE;
    IF NOT FOUND THEN
        RETURN CASE WHEN EXISTS (SELECT FROM pgq_task t WHERE t.id = task) THEN 'finished' ELSE 'unknown' END;
    END IF;
    IF held.lock IS NOT NULL THEN
        UPDATE pgq_queue q SET cancelled = true WHERE q.id = task;
        PERFORM pg_notify('pgq_control', '');
        RETURN 'running';
    END IF;
    IF held.hook IS NOT NULL OR held.options ?| ARRAY['collector', 'chain_on_failure', 'cached', 'django'] THEN
        UPDATE pgq_queue q
           SET cancelled = true, run_after = NULL, remaining = NULL, parked = NULL, position = nextval('pgq_position')
         WHERE q.id = task;
        IF held.key IS NOT NULL THEN
            PERFORM pgq_keyed_ready(held.queue, held.key, held.priority);
        END IF;
        PERFORM pgq_wake();
        RETURN 'queued';
    END IF;
    DELETE FROM pgq_queue q WHERE q.id = task;
    INSERT INTO pgq_task (id, success, attempt_count, priority, max_attempts, timeout, started, stopped, enqueued_at, func,
                          queue, args, kwargs, options, name, "group", hook, schedule, exception, message, traceback,
                          signature, history, key)
    VALUES (held.id, false, held.attempts, held.priority, held.max_attempts, held.timeout, clock_timestamp(),
            clock_timestamp(), held.enqueued_at, held.func, held.queue, held.args, held.kwargs, held.options, held.name,
            held."group", held.hook, held.schedule, 'pgq.errors.TaskCancelled', 'the task was cancelled', '',
            held.signature, held.history, held.key)
    -- The id of a finished task: the row was inserted by hand. See settle.sql.
    ON CONFLICT (id) DO NOTHING;
    -- Counted as workers count what they settle (0005), in this transaction; not if this role may not.
    IF has_table_privilege(to_regclass('pgq_metric_raw'), 'INSERT') THEN
        INSERT INTO pgq_metric_raw (worker, seq, body)
        VALUES (gen_random_uuid(), 0, jsonb_build_array(jsonb_build_array(
                left(held.queue, 200), left(held.func, 200), 'cancelled', 1, 0, 0, '[null, null]'::jsonb, 0, 0, '[null, null]'::jsonb)));
    END IF;
    PERFORM pg_notify('pgq_settled', '')
       FROM pgq_wait_until
      WHERE last_value > extract(epoch FROM clock_timestamp()) * 1000 AND pg_notification_queue_usage() < 0.5;
    RETURN 'queued';
END
$$;
COMMENT ON FUNCTION pgq_cancel IS
    'Cancels a task. Returns queued (it has ended without running), running (it is being interrupted), finished (too late) '
    'or unknown.';

-- Deletes finished tasks, but those that a row of another table refers to by a foreign key: the constraint, which Django
-- defers, would fail the commit for all of them, settlements of other tasks included. Returns a row for each one that was
-- there: reference NULL says that it is deleted, else which table and constraint keep it.
-- wait false: one that another transaction has locked, perhaps to refer to it, is left alone.
CREATE OR REPLACE FUNCTION pgq_delete_results(ids uuid[], wait boolean DEFAULT true)
RETURNS TABLE (id uuid, reference text)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    -- Of the foreign keys: those that can be checked before the commit, and those that are checked there.
    checkable text;
    deferred text;
    referring record;
    held uuid[];
    gone uuid[];
    refused text;
    refusing text;
BEGIN
    -- As a rule there is no foreign key, which has triggers on each partition; pg_constraint has no index to find it by.
    IF NOT EXISTS (SELECT FROM pg_inherits i JOIN pg_trigger t ON t.tgrelid = i.inhrelid
                    WHERE i.inhparent = 'pgq_task'::regclass AND t.tgconstraint <> 0) THEN
        RETURN QUERY DELETE FROM pgq_task t USING unnest(ids) d (id) WHERE t.id = d.id RETURNING t.id, NULL::text;
        RETURN;
    END IF;
    SELECT string_agg(name, ', ') FILTER (WHERE condeferrable), string_agg(name, ', ') FILTER (WHERE condeferred)
      INTO checkable, deferred
      FROM pg_constraint, format('%s.%I', connamespace::regnamespace, conname) name
     WHERE confrelid = 'pgq_task'::regclass AND contype = 'f' AND conparentid = 0;
    IF NOT wait THEN
        ids := ARRAY(SELECT t.id FROM pgq_task t WHERE t.id = ANY (ids) FOR UPDATE SKIP LOCKED);
    END IF;
    -- Most of those that are kept are found by reading; where this role may not read a table, its constraint refuses.
    FOR referring IN
        SELECT c.conname, c.conrelid::regclass AS relation, a.attname
          FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
         WHERE c.confrelid = 'pgq_task'::regclass AND c.contype = 'f' AND c.conparentid = 0
           AND c.confdeltype IN ('a', 'r') AND has_column_privilege(c.conrelid, a.attnum, 'SELECT')
    LOOP
        EXECUTE format('SELECT array_agg(DISTINCT r.%1$I) FROM %2$s r WHERE r.%1$I = ANY ($1)',
                       referring.attname, referring.relation)
           INTO held USING ids;
        CONTINUE WHEN held IS NULL;
        RETURN QUERY SELECT h, format('%s (constraint %s)', referring.relation, referring.conname) FROM unnest(held) h;
        ids := ARRAY(SELECT unnest(ids) EXCEPT SELECT unnest(held));
    END LOOP;
    BEGIN
        WITH deleted AS (DELETE FROM pgq_task t WHERE t.id = ANY (ids) RETURNING t.id)
        SELECT array_agg(deleted.id) INTO gone FROM deleted;
        IF checkable IS NOT NULL THEN
            EXECUTE format('SET CONSTRAINTS %s IMMEDIATE', checkable);
        END IF;
        IF deferred IS NOT NULL THEN
            EXECUTE format('SET CONSTRAINTS %s DEFERRED', deferred);
        END IF;
    EXCEPTION WHEN foreign_key_violation THEN
        GET STACKED DIAGNOSTICS refusing = TABLE_NAME, refused = CONSTRAINT_NAME;
    END;
    IF refused IS NULL THEN
        RETURN QUERY SELECT g, NULL::text FROM unnest(gone) g;
    ELSIF cardinality(ids) > 1 THEN
        RETURN QUERY SELECT * FROM pgq_delete_results(ids[:cardinality(ids) / 2], wait);
        RETURN QUERY SELECT * FROM pgq_delete_results(ids[cardinality(ids) / 2 + 1:], wait);
    ELSE
        RETURN QUERY SELECT ids[1], format('%s (constraint %s)', refusing, refused);
    END IF;
END
$$;
COMMENT ON FUNCTION pgq_delete_results IS
    'Deletes finished tasks, but those that other tables refer to. Returns each; reference: what keeps it, NULL: deleted.';

CREATE OR REPLACE FUNCTION pgq_retry(task uuid) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    old pgq_task;
    gone uuid;
    keeper text;
    ready record;
BEGIN
    -- The same task, by its id and signature, with all its attempts again; what went wrong goes into its history.
    SELECT * INTO old FROM pgq_task t WHERE t.id = task AND NOT EXISTS (SELECT FROM pgq_queue q WHERE q.id = task);
    IF FOUND THEN
        SELECT d.id, d.reference INTO gone, keeper FROM pgq_delete_results(ARRAY[task]) d;
        IF keeper IS NOT NULL THEN
            RAISE WARNING 'the finished task % is not run again: it would leave pgq_task, and % refers to it there', task,
                keeper USING HINT = 'Enqueue it anew, or let go of it there first.';
            RETURN NULL;
        END IF;
    END IF;
    -- Nothing was deleted if it was not there, or another session was faster.
    IF gone IS NOT NULL THEN
        INSERT INTO pgq_queue (id, func, args, kwargs, options, queue, priority, name, "group", hook, timeout,
                               max_attempts, schedule, slot, signature, enqueued_at, ready_at, history, key)
        VALUES (old.id, old.func, old.args, old.kwargs, old.options, old.queue, old.priority, old.name, old."group",
                old.hook, old.timeout, old.max_attempts, NULL, NULL, old.signature, old.enqueued_at,
                clock_timestamp(),
                CASE WHEN old.success THEN old.history ELSE old.history || (jsonb_build_object(
                    'exception', old.exception, 'message', old.message, 'traceback', old.traceback,
                    'attempt', old.attempt_count, 'worker', old.worker, 'at', old.stopped, 'started', old.started)
                    -- Another task may have its unique key by now.
                    || CASE WHEN old.options ? 'unique' THEN '{"unique": false}' ELSE '{}' END::jsonb) END, old.key);
        RETURN true;
    END IF;
    -- A parked or waiting task is made ready.
    UPDATE pgq_queue q
       SET parked = NULL, run_after = NULL, position = nextval('pgq_position'),
           ready_at = clock_timestamp()
     WHERE q.id = task AND q.lock IS NULL AND (q.parked IS NOT NULL OR q.run_after IS NOT NULL)
    RETURNING q.queue, q.key, q.priority INTO ready;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF ready.key IS NOT NULL THEN
        PERFORM pgq_keyed_ready(ready.queue, ready.key, ready.priority);
    END IF;
    PERFORM pgq_wake();
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgq_retry IS
    'Runs a finished task again, or releases a parked or waiting one now. False: there is none. NULL: a foreign key of '
    'another table keeps it in pgq_task.';

CREATE OR REPLACE FUNCTION pgq_pause(queue text) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO pgq_lane AS l (queue, priority, paused) VALUES (queue, 0, true)
    ON CONFLICT (queue, priority) DO UPDATE SET paused = true
$$;
COMMENT ON FUNCTION pgq_pause IS 'No worker claims from this queue until pgq_resume. Running tasks finish.';

CREATE OR REPLACE FUNCTION pgq_resume(queue text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE pgq_lane l SET paused = false WHERE l.queue = pgq_resume.queue AND l.paused;
    PERFORM pgq_wake();
END
$$;
COMMENT ON FUNCTION pgq_resume IS 'Lets workers claim from a paused queue again.';

CREATE OR REPLACE VIEW pgq_running AS
SELECT q.id, q.func, q.queue, clock_timestamp() - q.lock AS leased_for, q.attempts AS attempt, q.cancelled,
       pool.name AS pool, pool.host, (w ->> 'pid')::integer AS pid, (w ->> 'seconds')::float8 AS seconds,
       q.worker, q.args, progress.done, progress.total, progress.text AS progress
  FROM pgq_queue q
  LEFT JOIN pgq_progress progress ON progress.task = q.id
  LEFT JOIN pgq_worker pool ON pool.workers @> jsonb_build_array(jsonb_build_object('id', replace(q.worker::text, '-', '')))
  LEFT JOIN LATERAL jsonb_array_elements(pool.workers) w ON w ->> 'id' = replace(q.worker::text, '-', '')
 WHERE q.lock IS NOT NULL
 ORDER BY q.lock;
COMMENT ON VIEW pgq_running IS 'Tasks in the hands of workers: where, since when, and how far they are. seconds is as of the last heartbeat.';

CREATE OR REPLACE VIEW pgq_schedule_next AS
SELECT s.id, s.name, s.func, s.schedule_type, s.cron, s.next_run, s.next_run - now() AS due_in, s.repeats, s.paused, s.error,
       last.success AS last_success, last.stopped AS last_stopped
  FROM pgq_schedule s
  LEFT JOIN pgq_task last ON last.id = s.task
 ORDER BY s.paused, s.next_run NULLS LAST;
COMMENT ON VIEW pgq_schedule_next IS 'Schedules, soonest first, with what became of their last task.';

CREATE OR REPLACE FUNCTION pgq_is_named(queue text, names text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(bool_or(queue LIKE replace(replace(replace(replace(n, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%')), false)
      FROM unnest(names) n
$$;
COMMENT ON FUNCTION pgq_is_named IS 'Whether one of the names is that of the queue, or a pattern that it matches: mail.*';

-- Checks what should hold, while all of it runs; one row for each check. Reads only, by index and within bounds: where
-- dead entries make an index long, it reads back in growing steps for a tenth of a second and reports how far it came.
-- STABLE, so that all it compares is of one moment; lock_timeout, so that a locked table is a finding and no wait.
CREATE OR REPLACE FUNCTION pgq_check(patience interval DEFAULT '5 minutes', needed integer DEFAULT NULL)
RETURNS TABLE ("check" text, status text, detail text, advice text)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET lock_timeout = '500ms' AS $$
#variable_conflict use_column
DECLARE
    at constant timestamptz := clock_timestamp();
    -- A pool writes its heartbeat every 5 seconds at least.
    alive constant timestamptz := at - interval '20 seconds';
    budget constant interval := '100 milliseconds';
    until timestamptz;
    name text;
    listed text;
    more text;
    number bigint := 0;
    other bigint := 0;
    looked bigint := 0;
    lost bigint;
    pools bigint;
    lease interval;
    known text[];
    heads jsonb;
    since timestamptz;
    floor timestamptz;
    step interval;
    back bigint;
    width bigint;
    top bigint;
    last uuid;
    -- The last check that others build on met a locked table.
    blind boolean := false;
BEGIN
    FOREACH name IN ARRAY ARRAY['schema', 'locks', 'pools', 'queues', 'claims', 'paused', 'due', 'schedules', 'leases',
                                'workers', 'leader', 'lanes', 'watermarks', 'trigger', 'results', 'collectors', 'parked',
                                'partitions', 'versions', 'clocks', 'horizon', 'vacuum', 'notifications', 'rights'] LOOP
        "check" := name; status := 'ok'; detail := ''; advice := ''; listed := NULL; more := NULL;
        BEGIN
            CASE name
            -- A file of `migrations_sql` was not run, or the code that asks needs a newer one; or it is older than the tables
            -- (a warning).
            WHEN 'schema' THEN
                SELECT max(version), string_agg(wanted::text, ', ' ORDER BY wanted) FILTER (WHERE version IS NULL)
                  INTO number, listed
                  FROM generate_series(1, coalesce(needed, (SELECT max(version) FROM pgq_schema))) wanted
                  FULL JOIN pgq_schema ON version = wanted;
                detail := 'version ' || coalesce(number, 0);
                IF listed IS NOT NULL THEN
                    status := 'problem'; detail := detail || ', missing: ' || listed;
                    advice := 'Run: manage.py migrate pgq (or the files of migrations_sql by psql).';
                ELSIF number > needed THEN
                    status := 'warning'; detail := format('%s; this code is made for version %s', detail, needed);
                    advice := 'Normal during a deploy. If it stays so, upgrade pgq where this was asked: its pools too.';
                END IF;

            -- A session has held a lock on a table of pgq for 2 s that keeps others from writing.
            WHEN 'locks' THEN
                SELECT string_agg(DISTINCT format('%s on %s by %s', l.mode, l.relation::regclass,
                                                  coalesce(format('pid %s (%s %s)', l.pid, a.usename, a.application_name),
                                                           'a prepared transaction')), '; '),
                       min(l.pid)
                  INTO listed, number
                  FROM pg_locks l
                  JOIN pg_class c ON c.oid = l.relation AND c.relname LIKE 'pgq\_%' AND c.relkind IN ('r', 'p')
                  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
                 WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
                   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
                   AND (a.xact_start IS NULL OR a.xact_start < at - interval '2 seconds');
                IF listed IS NOT NULL THEN
                    status := 'problem'; detail := listed;
                    advice := format('It keeps tasks from being enqueued, claimed or settled. End that transaction: '
                                     'SELECT pg_terminate_backend(%s);', number);
                END IF;

            -- No pool runs, or one has fallen silent for 20 s.
            WHEN 'pools' THEN
                SELECT count(*) FILTER (WHERE heartbeat > alive AND status <> 'stopping'),
                       string_agg(format('%s on %s (pid %s) has been silent for %s s', name, host, pid,
                                         extract(epoch FROM at - heartbeat)::int), '; ') FILTER (WHERE heartbeat <= alive)
                  INTO pools, listed
                  FROM pgq_worker;
                detail := concat_ws('; ', CASE pools WHEN 0 THEN 'no pool is running' ELSE pools || ' running' END, listed);
                IF pools = 0 THEN
                    status := 'problem'; advice := 'Nothing is claimed until a pool runs. Start one: manage.py pgq_worker.';
                ELSIF listed IS NOT NULL THEN
                    status := 'warning';
                    advice := 'It was killed, frozen or cut off. Look at its host; what it held is run elsewhere when the '
                              'leases have run out.';
                END IF;

            -- Tasks are ready in a queue that no pool serves.
            WHEN 'queues' THEN
                blind := false; heads := '[]';
                -- The first ready task of each lane, as claims find it; for the next checks, too.
                SELECT coalesce(jsonb_agg(jsonb_build_object(
                           'queue', l.queue, 'since', ready.enqueued_at,
                           'paused', EXISTS (SELECT FROM pgq_lane o WHERE o.queue = l.queue AND o.paused))), '[]')
                  INTO heads
                  FROM pgq_lane l
                 CROSS JOIN LATERAL (
                       SELECT q.enqueued_at FROM pgq_queue q
                        WHERE q.queue = l.queue AND q.priority = l.priority AND q.position > l.low
                          AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NULL
                        ORDER BY q.position LIMIT 1) ready;
                SELECT string_agg(DISTINCT l.queue, ', ') INTO listed
                  FROM jsonb_to_recordset(heads) l (queue text)
                 WHERE NOT EXISTS (SELECT FROM pgq_worker p
                                    WHERE p.heartbeat > alive AND p.status <> 'stopping'
                                      AND (p.queues IS NULL OR pgq_is_named(l.queue, p.queues))
                                      AND NOT pgq_is_named(l.queue, coalesce(p.exclude_queues, '{}')));
                IF listed IS NOT NULL THEN
                    status := 'problem'; detail := 'tasks are ready in queues that no running pool serves: ' || listed;
                    advice := 'Start a pool for them: manage.py pgq_worker --queues NAMES (without --queues it serves all).';
                END IF;

            -- Ready tasks wait for 10 s though a worker is free, or no worker is ready.
            WHEN 'claims' THEN
                SELECT string_agg(format('%s on %s (pid %s): ready tasks wait since %s s though a worker is free', name, host,
                                         pid, extract(epoch FROM at - stalled_since)::int), '; ')
                  INTO listed
                  FROM pgq_worker
                 WHERE heartbeat > alive AND status <> 'stopping'
                   AND stalled_since < at - least(10, 2 * retry) * interval '1 second';
                IF blind THEN
                    RAISE lock_not_available;
                END IF;
                SELECT min(l.since) INTO since FROM jsonb_to_recordset(heads) l (since timestamptz, paused boolean)
                 WHERE NOT l.paused;
                SELECT count(*), count(*) FILTER (WHERE w ->> 'task' IS NOT NULL) INTO number, other
                  FROM pgq_worker p, jsonb_path_query(p.workers, '$[*] ? (@.state == "working" || @.state == "idle")') w
                 WHERE p.heartbeat > alive AND p.status <> 'stopping';
                detail := concat_ws('; ', listed, format('%s workers, %s of them busy', number, other),
                                    'the first ready task was enqueued ' || extract(epoch FROM at - since)::int || ' s ago');
                IF listed IS NOT NULL OR (since IS NOT NULL AND number = 0) THEN
                    status := 'problem';
                    advice := 'Look at the pool''s log, for frozen workers (ps: state T), and for locks (the check "locks", '
                              'pg_locks); then restart the pool.';
                END IF;

            -- Tasks are ready in a paused queue (a problem if all queues are paused).
            WHEN 'paused' THEN
                IF blind THEN
                    RAISE lock_not_available;
                END IF;
                SELECT string_agg(DISTINCT l.queue, ', ') INTO listed
                  FROM jsonb_to_recordset(heads) l (queue text, paused boolean) WHERE l.paused;
                SELECT count(*) INTO number
                  FROM pgq_lane l WHERE NOT EXISTS (SELECT FROM pgq_lane o WHERE o.queue = l.queue AND o.paused);
                IF listed IS NOT NULL THEN
                    -- If all queues are paused, nothing can be claimed at all.
                    status := CASE number WHEN 0 THEN 'problem' ELSE 'warning' END;
                    detail := 'tasks are ready in paused queues: ' || listed;
                    advice := 'If that is no longer wanted: SELECT pgq_resume(''QUEUE'');';
                END IF;

            -- Upkeep did not make a task ready whose time came 30 s ago.
            WHEN 'due' THEN
                SELECT q.run_after INTO since FROM pgq_queue q WHERE q.run_after IS NOT NULL ORDER BY q.run_after LIMIT 1;
                IF since < at - interval '30 seconds' THEN
                    status := 'problem';
                    detail := format('a task has been due for %s s and was not made ready', extract(epoch FROM at - since)::int);
                    advice := 'Upkeep does that: look for "upkeep" in the logs of the pools, and at the check "leader".';
                END IF;

            -- Some could not be fired, or have been overdue for a minute.
            WHEN 'schedules' THEN
                SELECT count(*) FILTER (WHERE error IS NOT NULL),
                       min(next_run) FILTER (WHERE error IS NULL AND next_run < at - interval '1 minute'),
                       (array_agg(format('%s: %s', coalesce(name, id::text), left(error, 200))) FILTER (WHERE error IS NOT NULL))[1]
                  INTO number, since, listed
                  FROM pgq_schedule
                 WHERE NOT paused AND repeats <> 0 AND next_run IS NOT NULL;
                detail := concat_ws('; ', number || ' with errors, such as ' || listed,
                                    'one has been overdue for ' || extract(epoch FROM at - since)::int || ' s');
                IF number > 0 THEN
                    status := 'problem';
                    advice := 'Mend them (SELECT * FROM pgq_schedule_next); each is tried again every minute, and loses no slot.';
                ELSIF since IS NOT NULL THEN
                    status := 'problem';
                    advice := 'Run a pool with PGQ["scheduler"] = True that serves the schedule''s queue; see also "leader".';
                END IF;

            -- Some have run out, and upkeep did not make their tasks ready again.
            WHEN 'leases' THEN
                blind := false; looked := 0; lost := 0; other := 0; floor := NULL;
                -- Upkeep that has just begun watches for as long as a lease, a minute at most, before it takes one away.
                SELECT (coalesce(max(retry), 60) + 1.5 * least(coalesce(max(retry), 60), 60) + 10) * interval '1 second'
                  INTO lease FROM pgq_worker;
                SELECT coalesce(array_agg(w #>> '{}'), '{}') INTO known
                  FROM pgq_worker, jsonb_path_query(workers, '$[*].id') w;
                -- What is younger may belong to a worker that its pool has not reported yet.
                since := at - interval '15 seconds'; step := '1 second'; until := clock_timestamp() + budget;
                LOOP
                    SELECT looked + count(*), lost + count(*) FILTER (WHERE q.lock < at - lease),
                           other + count(*) FILTER (WHERE replace(q.worker::text, '-', '') <> ALL (known)),
                           coalesce(min(q.lock), floor)
                      INTO looked, lost, other, floor
                      FROM pgq_queue q
                     WHERE q.lock < since AND q.lock >= greatest(since - step, '2000-01-01');
                    since := since - step; step := 2 * step;
                    EXIT WHEN since < '2000-01-01' OR clock_timestamp() > until;
                END LOOP;
                detail := CASE WHEN since < '2000-01-01' THEN '' ELSE format('read leases back to %s only', since) END;
                IF lost > 0 THEN
                    status := 'problem';
                    detail := format('%s leases have run out, the oldest was granted %s s ago', lost,
                                     extract(epoch FROM at - floor)::int);
                    advice := 'Upkeep makes such tasks ready again: look for "upkeep" in the logs of the pools, and at "leader".';
                END IF;

            -- Tasks are claimed by workers that no pool reports.
            WHEN 'workers' THEN
                -- Of the loop above.
                IF blind THEN
                    RAISE lock_not_available;
                ELSIF other > 0 THEN
                    status := 'warning'; detail := format('%s tasks are claimed by workers that no pool reports', other);
                    advice := 'If their host died, they are run again when their leases have run out (PGQ["retry"]). If a pool '
                              'works that is not in pgq_worker, restart it.';
                END IF;

            -- A session has held the leader's key for 30 s.
            WHEN 'leader' THEN
                SELECT format('pid %s (%s %s)', l.pid, a.usename, a.application_name), a.xact_start, l.pid
                  INTO listed, since, number
                  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
                 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND (l.classid::bigint << 32) | l.objid::bigint
                       = hashtextextended('pgq tick ' || 'pgq_schedule'::regclass::oid, 0);
                detail := coalesce(listed || ' holds the key now', 'no pool holds the key now, as between two ticks');
                IF since < at - least(patience, '30 seconds') THEN
                    status := 'warning';
                    detail := format('%s has held the key for %s s', listed, extract(epoch FROM at - since)::int);
                    advice := format('A tick takes less than some seconds; the pools go on without it. SELECT pg_terminate_backend(%s);', number);
                END IF;

            -- Tasks are ready without a lane, so no claim sees them.
            WHEN 'lanes' THEN
                -- Between each lane and the next: so the index of ready rows is entered where it should have nothing.
                WITH priorities AS (
                    SELECT queue, lag(priority::integer, 1, -32769) OVER (PARTITION BY queue ORDER BY priority) AS above,
                           priority::integer AS below
                      FROM pgq_lane
                     UNION ALL
                    SELECT queue, max(priority), 32768 FROM pgq_lane GROUP BY queue
                ), queues AS (
                    SELECT queue, lead(queue) OVER (ORDER BY queue) AS next
                      FROM (SELECT queue FROM pgq_lane UNION SELECT '') known
                ), stray AS (
                    SELECT found.*
                      FROM priorities p
                     CROSS JOIN LATERAL (
                           SELECT q.queue, q.priority, q.enqueued_at FROM pgq_queue q
                            WHERE q.queue = p.queue AND q.priority > p.above AND q.priority < p.below
                              AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NULL
                            ORDER BY q.queue, q.priority, q.position LIMIT 1) found
                     UNION ALL
                    SELECT found.*
                      FROM queues n
                     CROSS JOIN LATERAL (
                           SELECT q.queue, q.priority, q.enqueued_at FROM pgq_queue q
                            WHERE q.queue > n.queue AND q.queue < n.next
                              AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NULL
                            ORDER BY q.queue, q.priority, q.position LIMIT 1) found
                     WHERE n.next IS NOT NULL
                     UNION ALL
                    SELECT found.*
                      FROM queues n
                     CROSS JOIN LATERAL (
                           SELECT q.queue, q.priority, q.enqueued_at FROM pgq_queue q
                            WHERE q.queue > n.queue
                              AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NULL
                            ORDER BY q.queue, q.priority, q.position LIMIT 1) found
                     WHERE n.next IS NULL
                )
                -- A lane whose maker has not committed is missing for a while.
                SELECT string_agg(format('%s (priority %s)', queue, priority), ', ') INTO listed
                  FROM stray WHERE enqueued_at < at - interval '30 seconds';
                IF listed IS NOT NULL THEN
                    status := 'problem'; detail := 'tasks are ready without a lane, so no worker claims them: ' || listed;
                    advice := 'Upkeep makes the lane within 10 s, unless a transaction that is still open was first in that '
                              'queue: end it (the check "horizon"). Or look for "upkeep" in the logs of the pools.';
                END IF;

            -- A ready task stands below its lane's watermark, so no claim sees it.
            WHEN 'watermarks' THEN
                SELECT max(low) INTO top FROM pgq_lane;
                back := 0; width := 1000; until := clock_timestamp() + budget;
                LOOP
                    SELECT string_agg(format('%s (priority %s): position %s, watermark %s', l.queue, l.priority,
                                             below.position, l.low), '; ')
                      INTO listed
                      FROM pgq_lane l
                     CROSS JOIN LATERAL (
                           SELECT q.position FROM pgq_queue q
                            WHERE q.queue = l.queue AND q.priority = l.priority
                              AND q.position <= l.low - back AND q.position > l.low - back - width
                              AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NULL
                            LIMIT 1) below;
                    back := back + width; width := 2 * width;
                    EXIT WHEN listed IS NOT NULL OR back >= coalesce(top, 0) OR clock_timestamp() > until;
                END LOOP;
                IF listed IS NOT NULL THEN
                    status := 'problem'; detail := 'a ready task stands below its lane''s watermark: ' || listed;
                    advice := 'No worker claims it until upkeep lowers the watermark, within 10 s; look for "mended" in the logs '
                              'and report it, for it should never happen. At once: UPDATE pgq_lane SET low = 0;';
                ELSIF back < top THEN
                    detail := format('read the %s positions below each watermark only', back);
                END IF;

            -- `pgq_queue_inserted` is disabled or missing.
            WHEN 'trigger' THEN
                SELECT tgenabled::text INTO listed
                  FROM pg_trigger WHERE tgrelid = 'pgq_queue'::regclass AND tgname = 'pgq_queue_inserted';
                IF listed IS NULL OR listed NOT IN ('O', 'A') THEN
                    status := 'problem';
                    detail := 'the trigger pgq_queue_inserted is ' || CASE WHEN listed IS NULL THEN 'missing' ELSE 'disabled' END;
                    advice := CASE WHEN listed IS NULL THEN 'Run migrations_sql/0001_initial.up.sql once more.'
                              ELSE 'ALTER TABLE pgq_queue ENABLE TRIGGER pgq_queue_inserted;' END
                              || ' Without it no worker is woken, and a new lane is made only after 10 s.';
                END IF;

            -- A live task has a result already.
            WHEN 'results' THEN
                -- From the newest live task backwards, a thousand at a time; collectors are looked for on the same way.
                last := 'ffffffff-ffff-ffff-ffff-ffffffffffff'; until := clock_timestamp() + budget;
                blind := false; looked := 0; lost := 0; other := 0; known := '{}';
                LOOP
                    WITH live AS MATERIALIZED (
                        SELECT q.id, q.remaining, q.parked, q.args, q.enqueued_at
                          FROM pgq_queue q WHERE q.id < last ORDER BY q.id DESC LIMIT 1000
                    ), seen AS (
                        -- (Not EXISTS, which may become a hash of all results.)
                        SELECT id, (SELECT true FROM pgq_task t WHERE t.id = live.id LIMIT 1) AS twice,
                               CASE WHEN remaining IS NULL OR parked IS NOT NULL OR enqueued_at > at - interval '10 seconds'
                                    THEN false
                                    ELSE NOT EXISTS (
                                        SELECT FROM pgq_queue part
                                         WHERE part."group" = ANY (ARRAY[live.args ->> 0, replace(live.id::text, '-', '')])
                                           AND part.options ->> 'collector' = replace(live.id::text, '-', ''))
                               END AS forgotten
                          FROM live
                    )
                    SELECT count(*), lost + count(*) FILTER (WHERE twice), other + count(*) FILTER (WHERE forgotten),
                           min(id::text), coalesce(more, min(id::text) FILTER (WHERE twice)),
                           coalesce(listed, min(id::text) FILTER (WHERE forgotten))
                      INTO number, lost, other, last, more, listed
                      FROM seen;
                    looked := looked + number;
                    EXIT WHEN number < 1000 OR clock_timestamp() > until;
                END LOOP;
                known := ARRAY[listed, CASE WHEN number = 1000 THEN format('among the newest %s live tasks', looked) END];
                detail := coalesce(known[2], '');
                IF lost > 0 THEN
                    status := 'problem'; detail := format('%s live tasks have a result already, such as %s', lost, more);
                    advice := 'They were inserted by hand with the id of a finished task, and would run a second time. '
                              'DELETE FROM pgq_queue WHERE id = ...;';
                END IF;

            -- A group's collector waits for tasks that are gone.
            WHEN 'collectors' THEN
                detail := coalesce(known[2], '');
                IF blind THEN
                    RAISE lock_not_available;
                ELSIF other > 0 THEN
                    status := 'problem'; detail := format('%s collectors wait for tasks that are gone, such as %s', other, known[1]);
                    advice := format('Those tasks were deleted. Run it without them: UPDATE pgq_queue SET remaining = NULL, '
                                     'position = nextval(''pgq_position'') WHERE id = %L; or SELECT pgq_cancel(%L);',
                                     known[1], known[1]);
                END IF;

            -- There are parked tasks.
            WHEN 'parked' THEN
                SELECT sum(n), string_agg(format('%s: %s', n, reason), '; ' ORDER BY n DESC) FILTER (WHERE place <= 3)
                  INTO number, listed
                  FROM (SELECT left(parked, 120) AS reason, count(*) AS n, row_number() OVER (ORDER BY count(*) DESC) AS place
                          FROM (SELECT parked FROM pgq_queue WHERE parked IS NOT NULL ORDER BY id LIMIT 1000) first
                         GROUP BY 1) by_reason;
                IF number > 0 THEN
                    status := 'warning';
                    detail := format('%s%s tasks cannot run as they are; %s', number,
                                     CASE WHEN number >= 1000 THEN ' or more' END, listed);
                    advice := 'Mend the cause, then SELECT pgq_retry(id) FROM pgq_queue WHERE parked IS NOT NULL; or DELETE them.';
                END IF;

            -- Those of this week or the next are missing, or results of these weeks are in `pgq_task_other`.
            WHEN 'partitions' THEN
                SELECT string_agg(partition, ', ' ORDER BY partition) FILTER (WHERE to_regclass(partition) IS NULL)
                  INTO listed
                  FROM (SELECT 'pgq_task_' || to_char((date_trunc('week', at, 'UTC') + ahead * interval '7 days')
                                                      AT TIME ZONE 'UTC', 'YYYYMMDD') AS partition
                          FROM generate_series(0, 1) ahead) wanted;
                SELECT count(*) INTO number
                  FROM (SELECT FROM pgq_task_other WHERE id >= pgq_uuid7_floor(date_trunc('week', at, 'UTC'))
                                                     AND id < pgq_uuid7_floor(at + interval '5 weeks') LIMIT 1000) strays;
                detail := concat_ws('; ', 'missing: ' || listed, CASE WHEN number > 0 THEN number
                                    || CASE WHEN number >= 1000 THEN ' or more' ELSE '' END
                                    || ' results of these weeks are in pgq_task_other' END);
                IF detail <> '' THEN
                    status := 'warning';
                    advice := 'Results go to pgq_task_other meanwhile. As the owner of the tables: SELECT pgq_make_partitions(); '
                              'a week gets no partition while pgq_task_other holds its results: delete those, or leave it so.';
                END IF;

            -- Pools of several versions run.
            WHEN 'versions' THEN
                SELECT count(DISTINCT version),
                       string_agg(DISTINCT format('%s: %s on %s', version, name, host), '; ')
                  INTO number, listed
                  FROM pgq_worker WHERE heartbeat > alive;
                IF number > 1 THEN
                    status := 'warning'; detail := 'pools of several versions run: ' || listed;
                    advice := 'Restart the old ones (SIGTERM; running tasks finish).';
                ELSE
                    SELECT coalesce(max(version), '') INTO detail FROM pgq_worker WHERE heartbeat > alive;
                END IF;

            -- A host's clock is more than 2 s off the database's.
            WHEN 'clocks' THEN
                SELECT string_agg(DISTINCT format('%s: %s s', host, round(clock_skew::numeric, 1)), '; ')
                           FILTER (WHERE abs(clock_skew) > 2),
                       max(clock_skew) - min(clock_skew) > 2
                  INTO listed, more
                  FROM pgq_worker WHERE heartbeat > alive;
                IF listed IS NOT NULL OR more::boolean THEN
                    status := 'warning';
                    detail := 'clocks differ from the database''s: ' || coalesce(listed, 'hosts by more than 2 s from each other');
                    advice := 'Only the database''s clock decides when tasks run, but ids and logs carry the hosts''. Run NTP there.';
                END IF;

            -- A transaction, a prepared one or a replication slot keeps dead rows from being removed, for 5 minutes already
            -- (`pgq_check('1 minute')`: for one).
            WHEN 'horizon' THEN
                WITH holder AS (
                    SELECT format('pid %s (%s %s), %s since %s', pid, usename, application_name, state, date_trunc('second', xact_start))
                           AS who, greatest(age(backend_xmin), age(backend_xid)) AS behind,
                           format('SELECT pg_terminate_backend(%s);', pid) AS remedy
                      FROM pg_stat_activity
                     WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND xact_start < at - patience
                       AND (datname = current_database() OR backend_type = 'walsender')
                       AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker'
                     UNION ALL
                    SELECT format('prepared transaction %s (%s) since %s', gid, owner, date_trunc('second', prepared)),
                           age(transaction), format('ROLLBACK PREPARED %L; or COMMIT PREPARED %L;', gid, gid)
                      FROM pg_prepared_xacts
                     WHERE database = current_database() AND prepared < at - patience
                     UNION ALL
                    SELECT format('replication slot %s%s', slot_name, CASE WHEN active THEN '' ELSE ', unused' END), age(xmin),
                           format('SELECT pg_drop_replication_slot(%L); if nothing needs it.', slot_name)
                      FROM pg_replication_slots
                     WHERE xmin IS NOT NULL AND (NOT active OR age(xmin) > 10000000)
                )
                SELECT count(*), string_agg(format('%s, %s transactions behind', who, behind), '; ') FILTER (WHERE place <= 3),
                       min(remedy) FILTER (WHERE place = 1)
                  INTO number, listed, more
                  FROM (SELECT *, row_number() OVER (ORDER BY behind DESC) AS place FROM holder) ordered;
                IF number > 0 THEN
                    status := 'warning'; detail := format('what is dead cannot be removed (%s in the way): %s', number, listed);
                    advice := 'Tables and indexes grow meanwhile, all of this database''s. If it is not needed: ' || more;
                END IF;

            -- Autovacuum is off, or cannot keep up.
            WHEN 'vacuum' THEN
                SELECT string_agg(format('%s has %s dead rows beside %s living', s.relname, s.n_dead_tup, s.n_live_tup), '; ')
                           FILTER (WHERE s.n_dead_tup > greatest(100000, 2 * s.n_live_tup)),
                       string_agg(format('autovacuum is off for %s', s.relname), '; ')
                           FILTER (WHERE EXISTS (SELECT FROM unnest(c.reloptions) o
                                                  WHERE o IN ('autovacuum_enabled=false', 'autovacuum_enabled=off',
                                                              'autovacuum_enabled=0', 'autovacuum_enabled=no'))),
                       max(pg_relation_size(c.oid)) FILTER (WHERE s.relname = 'pgq_queue'
                                                            AND pg_relation_size(c.oid) > 512 * 1024 * 1024
                                                            AND pg_relation_size(c.oid) > 20000 * (s.n_live_tup + s.n_dead_tup))
                  INTO listed, more, number
                  FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
                 WHERE s.relid IN ('pgq_queue'::regclass, 'pgq_lane'::regclass, 'pgq_worker'::regclass, 'pgq_schedule'::regclass,
                                   'pgq_progress'::regclass);
                IF current_setting('autovacuum') = 'off' OR current_setting('track_counts') = 'off' THEN
                    more := concat_ws('; ', 'autovacuum is off in this server', more);
                END IF;
                detail := concat_ws('; ', more, listed, format('the file of pgq_queue is nearly empty, %s', pg_size_pretty(number)));
                IF number IS NULL THEN
                    detail := concat_ws('; ', more, listed);
                END IF;
                IF detail <> '' THEN
                    status := 'warning';
                    advice := CASE WHEN more IS NOT NULL THEN 'Turn autovacuum on, or claims grow slower and slower.'
                              WHEN listed IS NOT NULL THEN 'End what pins the horizon (the check "horizon"); then VACUUM that table.'
                              ELSE 'In a quiet minute: VACUUM FULL pgq_queue; it locks the table while it runs.' END;
                END IF;

            -- The queue of NOTIFY is more than a tenth full.
            WHEN 'notifications' THEN
                detail := format('the queue of NOTIFY is %s %% full', round((100 * pg_notification_queue_usage())::numeric, 1));
                IF pg_notification_queue_usage() > 0.1 THEN
                    status := 'warning';
                    advice := 'A session that listens has been in one transaction for long (SELECT * FROM pg_stat_activity ORDER BY '
                              'xact_start): end it. From half full on pgq sends no more; workers then find tasks by polling.';
                END IF;

            -- There are sessions whose state this role may not see.
            WHEN 'rights' THEN
                SELECT count(*) INTO number FROM pg_stat_activity
                 WHERE query = '<insufficient privilege>' AND datname = current_database();
                IF number > 0 THEN
                    status := 'warning';
                    detail := format('%s sessions of other roles cannot be seen: not whether they pin the horizon, nor for how '
                                     'long they hold locks', number);
                    advice := format('GRANT pg_read_all_stats TO %I;', current_user);
                END IF;
            END CASE;
        EXCEPTION
            WHEN lock_not_available THEN
                -- Once is enough to wait for.
                PERFORM set_config('lock_timeout', '20ms', true);
                blind := true; status := 'problem'; detail := 'could not be checked: a table of pgq is locked';
                advice := 'Nothing is claimed meanwhile. The check "locks" names the session.';
            WHEN insufficient_privilege OR undefined_table OR undefined_column OR undefined_function THEN
                status := 'warning'; detail := 'could not be checked: ' || SQLERRM;
                advice := 'Check as a role that may read the tables of pgq; if one is missing: manage.py migrate pgq.';
        END;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgq_check IS
    'Checks what should hold and says what to do. problem: tasks do not run, or an invariant is broken; warning: it will hurt.';

DO $$
BEGIN
    PERFORM pgq_pin_search_path();
END
$$;
