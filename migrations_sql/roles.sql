-- Roles: for each kind of user of pgq's tables one, with no more rights than its work needs.
--
--     psql -v ON_ERROR_STOP=1 -1 -f migrations_sql/roles.sql
--
-- Nothing needs it: where one role does everything, leave it out. Run it after the migrations and again after each of
-- them; it may be repeated. It concerns what is named pgq_... in the schema that holds pgq_queue. Run it as a superuser,
-- or as a role that owns these objects and may create roles. Then give the group roles to those who log in:
--
--     GRANT pgq_producer  TO web;      -- enqueues, and cannot read what others enqueued
--     GRANT pgq_worker    TO pool;     -- runs pgq_worker
--     GRANT pgq_inspector TO grafana;  -- sees how many, where and since when; no arguments, no results
--     GRANT pgq_owner     TO deploy;   -- migrates, makes and drops partitions, and all else
--
-- No trigger and no function runs with rights of its owner (there is no SECURITY DEFINER): what the insert trigger does
-- for a producer are three harmless things, which are granted below one by one.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['pgq_producer', 'pgq_worker', 'pgq_inspector', 'pgq_owner'] LOOP
        -- Roles belong to the whole server: another database may be making them just now.
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
    IF NOT pg_has_role(current_user, 'pgq_owner', 'MEMBER') THEN
        EXECUTE format('GRANT pgq_owner TO %I', current_user);
    END IF;
END
$$;

-- All objects of pgq go to pgq_owner, and the other roles lose what they had: so the rights are those below, no others.
DO $$
DECLARE
    home regnamespace := (SELECT relnamespace FROM pg_class WHERE oid = 'pgq_queue'::regclass);
    kind text;
    name text;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %s TO pgq_producer, pgq_worker, pgq_inspector', home);
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %s TO pgq_owner', home);
    FOR kind, name IN
        SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass
          FROM pg_class c
         WHERE c.relnamespace = home AND c.relname LIKE 'pgq\_%' AND c.relkind IN ('r', 'p', 'v', 'S')
           -- The sequence of an identity column follows its table.
           AND NOT EXISTS (SELECT FROM pg_depend d
                            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'i'
                              AND c.relkind = 'S')
    LOOP
        EXECUTE format('ALTER %s %s OWNER TO pgq_owner', kind, name);
        EXECUTE format('REVOKE ALL ON %s %s FROM pgq_producer, pgq_worker, pgq_inspector',
                       CASE kind WHEN 'SEQUENCE' THEN kind ELSE 'TABLE' END, name);
    END LOOP;
    FOR name IN SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = home AND p.proname LIKE 'pgq\_%' LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO pgq_owner', name);
    END LOOP;
END
$$;

-- Producers. Not `position`, `attempts`, `lock` and the like, which are the workers', nor `schedule` and `slot`: with those
-- one could take a schedule's place. No SELECT: neither payloads nor signatures of others can be read, so none can be
-- replayed. Enqueuing returns nothing, so it needs none.
GRANT INSERT (id, func, args, kwargs, options, queue, priority, name, "group", hook, timeout, max_attempts, run_after,
              remaining, signature, key, unique_key, unique_until, expires_at) ON pgq_queue TO pgq_producer;
-- Of the trigger and the defaults: a ticket; a lane that is not there yet, whose watermark and pause stay at their
-- defaults; that the lane of a key is in use again; and whether a worker sleeps.
GRANT USAGE ON SEQUENCE pgq_position TO pgq_producer;
GRANT SELECT (queue, priority), INSERT (queue, priority) ON pgq_lane TO pgq_producer;
GRANT SELECT (queue, key, priority, idle_since), INSERT (queue, key, priority), UPDATE (idle_since)
   ON pgq_keyed TO pgq_producer;
GRANT USAGE ON SEQUENCE pgq_keyed_missed TO pgq_producer;
GRANT SELECT ON SEQUENCE pgq_sleep_until TO pgq_producer;
-- Which task has a unique key: the id alone, and of keys that are taken for a time.
GRANT SELECT (id, unique_key) ON pgq_queue TO pgq_producer;
GRANT SELECT, INSERT, UPDATE (task, until) ON pgq_unique TO pgq_producer;

-- Workers: claiming, settling and upkeep. They may not change what a row runs, once it is there.
-- Their tasks may need more, of pgq's tables too: for instance INSERT ON pgq_schedule, to make schedules.
GRANT SELECT, INSERT, DELETE,
      UPDATE (position, attempts, crashes, cancelled, run_after, remaining, parked, history, lock, worker, receipt, strand,
              unique_key, unique_until, ready_at)
   ON pgq_queue TO pgq_worker;
GRANT SELECT, INSERT, DELETE, UPDATE (history) ON pgq_task TO pgq_worker;
GRANT SELECT, INSERT, UPDATE (low, paused) ON pgq_lane TO pgq_worker;
GRANT SELECT, INSERT, DELETE, UPDATE (low, idle_since) ON pgq_keyed TO pgq_worker;
-- A pool writes the limits that its code gives.
GRANT SELECT, INSERT, UPDATE, DELETE ON pgq_limit, pgq_rate TO pgq_worker;
GRANT SELECT, DELETE, UPDATE (next_run, repeats, day, wall_time, task, last_slot, error, retry_at)
   ON pgq_schedule TO pgq_worker;
GRANT SELECT, INSERT, UPDATE, DELETE
   ON pgq_worker, pgq_progress, pgq_unique, pgq_metric_raw, pgq_metric, pgq_total, pgq_gauge, pgq_finding TO pgq_worker;
GRANT SELECT, INSERT ON pgq_mark TO pgq_worker;
GRANT SELECT ON pgq_schema TO pgq_worker;
GRANT USAGE, SELECT ON SEQUENCE pgq_position, pgq_strand, pgq_keyed_missed TO pgq_worker;
GRANT SELECT, UPDATE ON SEQUENCE pgq_sleep_until, pgq_wait_until, pgq_strand_low TO pgq_worker;

-- Inspectors: no args, kwargs, options (which hold the arguments of later links), results, messages, tracebacks, history,
-- signatures, log lines or what code gave for a schedule. Two of the views show some of these, so of them only the other
-- columns: name these instead of *.
GRANT SELECT (id, position, priority, attempts, crashes, cancelled, max_attempts, queue, func, name, "group", hook,
              timeout, run_after, remaining, parked, schedule, slot, enqueued_at, ready_at, lock, worker, key, strand,
              unique_key, unique_until, expires_at)
   ON pgq_queue TO pgq_inspector;
GRANT SELECT (id, success, attempt_count, priority, max_attempts, timeout, started, stopped, enqueued_at, func, queue,
              name, "group", hook, cluster, worker, schedule, exception, key)
   ON pgq_task TO pgq_inspector;
GRANT SELECT (id, name, func, hook, queue, priority, schedule_type, minutes, seconds, cron, repeats, next_run, time_zone,
              catch_up, overlap, jitter, paused, intended_date_kwarg, day, wall_time, task, last_slot, error, retry_at,
              source, release, auto_paused, stale_since)
   ON pgq_schedule TO pgq_inspector;
GRANT SELECT (task, done, total, updated_at) ON pgq_progress TO pgq_inspector;
GRANT SELECT ON pgq_lane, pgq_keyed, pgq_limit, pgq_rate, pgq_unique, pgq_worker, pgq_schema, pgq_queue_depth, pgq_schedule_next,
      pgq_metric, pgq_total, pgq_gauge, pgq_mark, pgq_finding, pgq_rates, pgq_functions TO pgq_inspector;
GRANT SELECT (id, func, queue, leased_for, attempt, cancelled, pool, host, pid, seconds, worker, done, total)
   ON pgq_running TO pgq_inspector;
GRANT SELECT (func, exception, failures, last, last_id) ON pgq_failures_by_function TO pgq_inspector;
GRANT SELECT ON SEQUENCE pgq_position, pgq_sleep_until, pgq_wait_until, pgq_strand, pgq_strand_low, pgq_keyed_missed
   TO pgq_inspector;
