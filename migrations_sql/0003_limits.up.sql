-- pgq 0003: keys, which group tasks for turns and limits; limits on how many run at once and how many start in a time; and
-- the columns of uniqueness and expiry.

-- If a long transaction holds one of pgq's tables, give up: all other sessions would queue behind this statement.
SET LOCAL lock_timeout = '2s';

INSERT INTO pgq_schema (version) VALUES (3) ON CONFLICT DO NOTHING;

ALTER TABLE pgq_queue
    ADD COLUMN IF NOT EXISTS key          text COLLATE "C",
    ADD COLUMN IF NOT EXISTS strand       bigint,
    ADD COLUMN IF NOT EXISTS unique_key   text COLLATE "C",
    ADD COLUMN IF NOT EXISTS unique_until text,
    ADD COLUMN IF NOT EXISTS expires_at   timestamptz,
    DROP CONSTRAINT IF EXISTS pgq_queue_key_check,
    DROP CONSTRAINT IF EXISTS pgq_queue_strand_check,
    DROP CONSTRAINT IF EXISTS pgq_queue_unique_check,
    DROP CONSTRAINT IF EXISTS pgq_queue_times_check;
ALTER TABLE pgq_queue
    ADD CONSTRAINT pgq_queue_key_check    CHECK (key <> '' AND octet_length(key) <= 1000),
    -- A strand counts as a place that is taken, so it must end with the lease.
    ADD CONSTRAINT pgq_queue_strand_check CHECK (strand IS NULL OR lock IS NOT NULL),
    ADD CONSTRAINT pgq_queue_unique_check CHECK ((unique_key IS NULL) = (unique_until IS NULL)
                                                 AND unique_until IN ('start', 'end')
                                                 AND unique_key <> '' AND octet_length(unique_key) <= 1000),
    ADD CONSTRAINT pgq_queue_times_check  CHECK (least(enqueued_at, run_after, lock, slot, expires_at) > '0001-01-02 00:00Z'
                                                 AND greatest(enqueued_at, run_after, lock, slot, expires_at)
                                                     < '9999-12-30 00:00Z');
COMMENT ON COLUMN pgq_queue.key IS 'Groups tasks: the keys of a queue take turns, and limits count by key. NULL: none.';
COMMENT ON COLUMN pgq_queue.strand IS 'The serial line that runs this row: rows of one strand run one after the other. NULL: no limit counts it.';
COMMENT ON COLUMN pgq_queue.unique_key IS 'Of all live rows one at most has this. NULL: the task is not unique, or no longer.';
COMMENT ON COLUMN pgq_queue.unique_until IS 'Until when it is unique: start (the next claim) or end (it leaves the queue).';
COMMENT ON COLUMN pgq_queue.expires_at IS 'A task that has not started by then ends as failed. NULL: never.';
-- A finished task keeps its key, so that it has it again if it is run again.
ALTER TABLE pgq_task ADD COLUMN IF NOT EXISTS key text;
COMMENT ON COLUMN pgq_task.key IS 'The key that the queued task had. NULL: none.';

-- Rows without a key are claimed as ever. The predicates are repeated in the statements that claim.
DROP INDEX IF EXISTS pgq_queue_ready;
CREATE INDEX pgq_queue_ready ON pgq_queue (queue, priority, position)
    WHERE lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL AND key IS NULL;
CREATE INDEX IF NOT EXISTS pgq_queue_keyed ON pgq_queue (queue, key, priority, position)
    WHERE lock IS NULL AND run_after IS NULL AND parked IS NULL AND remaining IS NULL AND key IS NOT NULL;
-- Of a strict key: what holds back the others.
CREATE INDEX IF NOT EXISTS pgq_queue_again ON pgq_queue (key)
    WHERE key IS NOT NULL AND attempts > 0 AND (run_after IS NOT NULL OR parked IS NOT NULL);
-- What limits count: the strands that run, of a key and of a queue. Only rows under a limit are in them.
CREATE INDEX IF NOT EXISTS pgq_queue_running ON pgq_queue (key, strand) WHERE strand IS NOT NULL;
CREATE INDEX IF NOT EXISTS pgq_queue_strand ON pgq_queue (strand) WHERE strand IS NOT NULL;
CREATE INDEX IF NOT EXISTS pgq_queue_total ON pgq_queue (queue, strand) WHERE strand IS NOT NULL;

-- A number that only grows, so that to count strands can jump from one to the next and begin at a watermark.
-- CACHE stays 1: with a cache, sessions would draw numbers out of order, below the watermark.
CREATE SEQUENCE IF NOT EXISTS pgq_strand AS bigint CACHE 1;
-- Watermark of strands: no running row has a strand at or below it. Upkeep writes it; it obeys no transaction.
CREATE SEQUENCE IF NOT EXISTS pgq_strand_low AS bigint MINVALUE 0 START 0;
-- Grows each time a statement had to leave the making of lanes to upkeep. It obeys no transaction.
CREATE SEQUENCE IF NOT EXISTS pgq_keyed_missed AS bigint MINVALUE 0 START 0;

CREATE TABLE IF NOT EXISTS pgq_keyed (
    queue       text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    priority    smallint NOT NULL DEFAULT 0,
    low         bigint   NOT NULL DEFAULT 0,
    idle_since  timestamptz,
    PRIMARY KEY (queue, key, priority)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE pgq_keyed IS 'The lanes of keys: one row for each queue, key and priority that had ready tasks lately.';
COMMENT ON COLUMN pgq_keyed.queue IS 'Name of the queue.';
COMMENT ON COLUMN pgq_keyed.key IS 'The key of its tasks.';
COMMENT ON COLUMN pgq_keyed.priority IS 'Priority of its tasks.';
COMMENT ON COLUMN pgq_keyed.low IS 'Watermark: no ready row of this lane has a position at or below it.';
COMMENT ON COLUMN pgq_keyed.idle_since IS 'Since when upkeep knows of no ready row here; claims leave such a lane out. NULL: it is in use.';
-- What a claim reads: the lanes in use in a circle, by queue and key.
CREATE INDEX IF NOT EXISTS pgq_keyed_ring ON pgq_keyed (priority, queue, key) WHERE idle_since IS NULL;
CREATE INDEX IF NOT EXISTS pgq_keyed_idle ON pgq_keyed (idle_since) WHERE idle_since IS NOT NULL;

CREATE TABLE IF NOT EXISTS pgq_limit (
    scope       text COLLATE "C" NOT NULL,
    name        text COLLATE "C" NOT NULL,
    concurrency integer,
    rate        integer,
    period      double precision,
    smooth      boolean NOT NULL DEFAULT false,
    strict      boolean NOT NULL DEFAULT false,
    pinned      boolean NOT NULL DEFAULT false,
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (scope, name),
    CONSTRAINT pgq_limit_scope_check       CHECK (scope IN ('key', 'queue')),
    CONSTRAINT pgq_limit_name_check        CHECK (name <> '' AND octet_length(name) <= 1000),
    CONSTRAINT pgq_limit_concurrency_check CHECK (concurrency >= 0),
    CONSTRAINT pgq_limit_rate_check        CHECK (rate >= 0 AND (rate IS NULL) = (period IS NULL)),
    -- A year at most: times after that would be no dates.
    CONSTRAINT pgq_limit_period_check      CHECK (period > 0 AND period <= 31622400),
    CONSTRAINT pgq_limit_times_check       CHECK (updated_at > '0001-01-02 00:00Z' AND updated_at < '9999-12-30 00:00Z')
);
COMMENT ON TABLE pgq_limit IS 'Limits: of a queue, or of all keys whose part before the first colon is the name. Read by each claim.';
COMMENT ON COLUMN pgq_limit.scope IS 'What it limits: key or queue.';
COMMENT ON COLUMN pgq_limit.name IS 'Of a queue; or the part of keys before the first colon.';
COMMENT ON COLUMN pgq_limit.period IS 'Seconds that `rate` is about. NULL: there is no rate.';
COMMENT ON COLUMN pgq_limit.updated_at IS 'When it was set last.';
COMMENT ON COLUMN pgq_limit.concurrency IS 'How many strands may run at the same time, of each key or of the queue. 0: none. NULL: no limit.';
COMMENT ON COLUMN pgq_limit.rate IS 'How many tasks may be claimed in any `period` seconds. 0: none. NULL: no limit.';
COMMENT ON COLUMN pgq_limit.smooth IS 'Whether the starts are spread over the period.';
COMMENT ON COLUMN pgq_limit.strict IS 'Whether a task that waits for another attempt holds back those behind it that have its key.';
COMMENT ON COLUMN pgq_limit.pinned IS 'Whether an operator set it: then code leaves it as it is.';

-- What a rate has counted. Written by the claim that holds the lock of the key or queue, and by no other session.
CREATE TABLE IF NOT EXISTS pgq_rate (
    scope       text COLLATE "C" NOT NULL,
    name        text COLLATE "C" NOT NULL,
    starts      jsonb NOT NULL DEFAULT '[]',
    not_before  timestamptz,
    limited_at  timestamptz,
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (scope, name),
    CONSTRAINT pgq_rate_starts_check CHECK (jsonb_typeof(starts) = 'array'),
    CONSTRAINT pgq_rate_times_check  CHECK (least(updated_at, not_before, limited_at) > '0001-01-02 00:00Z'
                                            AND greatest(updated_at, not_before, limited_at) < '9999-12-30 00:00Z')
) WITH (fillfactor = 25, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE pgq_rate IS 'The starts that count for a rate: of each key, or of a queue.';
COMMENT ON COLUMN pgq_rate.scope IS 'That of the limit: key or queue.';
COMMENT ON COLUMN pgq_rate.name IS 'The key, in full, or the queue.';
COMMENT ON COLUMN pgq_rate.updated_at IS 'When it was counted last.';
COMMENT ON COLUMN pgq_rate.starts IS 'Arrays of two: the number of a cell, a sixtieth of the period, and how many were claimed in it.';
COMMENT ON COLUMN pgq_rate.not_before IS 'The rate is used up until then. NULL: it is not known to be.';
COMMENT ON COLUMN pgq_rate.limited_at IS 'The updated_at of the limit by which not_before was reckoned; by another, it means nothing.';

-- Makes the lanes of keys that have ready rows, and brings idle ones back into use. It never waits: ON CONFLICT would wait
-- for another open transaction that makes the same lane, so a lock is tried first. What is locked is left to its holder;
-- should that one roll back, the sweep finds the rows.
CREATE OR REPLACE FUNCTION pgq_make_keyed(queues text[], keys text[], priorities smallint[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    missing integer;
    -- More locks, one for each lane, could fill the lock table.
    many constant integer := 64;
BEGIN
    UPDATE pgq_keyed k SET idle_since = NULL
     WHERE (k.queue, k.key, k.priority) IN (
           SELECT i.queue, i.key, i.priority
             FROM pgq_keyed i JOIN unnest(queues, keys, priorities) AS n (queue, key, priority) USING (queue, key, priority)
            WHERE i.idle_since IS NOT NULL
              FOR UPDATE OF i SKIP LOCKED);
    SELECT array_agg(n.queue), array_agg(n.key), array_agg(n.priority), count(*) INTO queues, keys, priorities, missing
      FROM unnest(queues, keys, priorities) AS n (queue, key, priority)
     WHERE NOT EXISTS (SELECT FROM pgq_keyed k WHERE k.queue = n.queue AND k.key = n.key AND k.priority = n.priority);
    IF missing = 0 THEN
        RETURN;
    END IF;
    IF missing > many AND pg_try_advisory_xact_lock(hashtextextended('pgq_keyed', 0)) THEN
        INSERT INTO pgq_keyed (queue, key, priority)
        SELECT * FROM unnest(queues, keys, priorities) n ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING;
        RETURN;
    END IF;
    IF missing <= many AND pg_try_advisory_xact_lock_shared(hashtextextended('pgq_keyed', 0)) THEN
        WITH tried AS MATERIALIZED (
            SELECT n.*, pg_try_advisory_xact_lock(
                       hashtextextended('pgq_keyed ' || n.priority || ' ' || n.queue || ' ' || n.key, 0)) AS mine
              FROM unnest(queues, keys, priorities) AS n (queue, key, priority)
        )
        INSERT INTO pgq_keyed (queue, key, priority)
        SELECT queue, key, priority FROM tried WHERE mine ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING;
        RETURN;
    END IF;
    PERFORM nextval('pgq_keyed_missed');
END
$$;
COMMENT ON FUNCTION pgq_make_keyed IS 'Makes lanes of keys, or brings them back into use. Waits for no other session.';

-- Called for a row with a key that becomes ready by an UPDATE, so that its lane is there and in use.
-- position: given if it may be an old one, below the lane's watermark. Then the lane is locked until the commit: else upkeep,
-- which does not see the row yet, could move the watermark past it.
CREATE OR REPLACE FUNCTION pgq_keyed_ready(queue text, key text, priority smallint, "position" bigint DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF pgq_keyed_ready.position IS NOT NULL THEN
        PERFORM FROM pgq_keyed k
          WHERE k.queue = pgq_keyed_ready.queue AND k.key = pgq_keyed_ready.key AND k.priority = pgq_keyed_ready.priority
            FOR UPDATE;
        UPDATE pgq_keyed k SET low = pgq_keyed_ready.position - 1
         WHERE k.queue = pgq_keyed_ready.queue AND k.key = pgq_keyed_ready.key AND k.priority = pgq_keyed_ready.priority
           AND k.low >= pgq_keyed_ready.position;
    END IF;
    PERFORM FROM pgq_keyed k
      WHERE k.queue = pgq_keyed_ready.queue AND k.key = pgq_keyed_ready.key AND k.priority = pgq_keyed_ready.priority
        AND k.idle_since IS NULL;
    IF NOT FOUND THEN
        PERFORM pgq_make_keyed(ARRAY[queue], ARRAY[key], ARRAY[priority]);
    END IF;
END
$$;
COMMENT ON FUNCTION pgq_keyed_ready IS 'Makes sure that claims find the lane of a row with a key.';

-- Once for each INSERT statement: makes sure of the lanes, then wakes sleepers.
CREATE OR REPLACE FUNCTION pgq_queue_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    fresh record;
    awaited boolean := false;
    keyed boolean := false;
BEGIN
    FOR fresh IN SELECT n.queue, n.priority, count(n.key) AS keys, count(*) AS total,
                        bool_or(n.run_after IS NULL AND n.remaining IS NULL AND n.parked IS NULL) AS ready
                   FROM inserted n GROUP BY n.queue, n.priority LOOP
        awaited := awaited OR fresh.ready;
        keyed := keyed OR (fresh.keys > 0 AND fresh.ready);
        CONTINUE WHEN fresh.keys = fresh.total;
        PERFORM FROM pgq_lane l WHERE l.queue = fresh.queue AND l.priority = fresh.priority;
        CONTINUE WHEN FOUND;
        -- ON CONFLICT would wait for another open transaction that makes the same lane. Leave it to that
        -- one; should it roll back, the sweep finds the rows and makes the lane.
        IF pg_try_advisory_xact_lock(hashtextextended('pgq_lane ' || fresh.priority || ' ' || fresh.queue, 0)) THEN
            INSERT INTO pgq_lane (queue, priority) VALUES (fresh.queue, fresh.priority) ON CONFLICT DO NOTHING;
        END IF;
    END LOOP;
    IF keyed THEN
        PERFORM pgq_make_keyed(array_agg(f.queue), array_agg(f.key), array_agg(f.priority))
           FROM (SELECT DISTINCT n.queue, n.key, n.priority
                   FROM inserted n
                  WHERE n.key IS NOT NULL AND n.run_after IS NULL AND n.remaining IS NULL AND n.parked IS NULL) f
           LEFT JOIN pgq_keyed k USING (queue, key, priority)
          WHERE k.queue IS NULL OR k.idle_since IS NOT NULL
         HAVING count(*) > 0;
    END IF;
    IF awaited THEN
        PERFORM pgq_wake();
    END IF;
    RETURN NULL;
END
$$;

-- Sets a limit. Of a key: its name is a whole key, or the part of keys before their first colon, and each key has the limit
-- for itself. Of a queue: it holds for all of the queue together. What is not given is no limit; 0 holds all; but strict stays
-- as it is.
-- pinned: workers that start leave the limit as it is, whatever the code says.
CREATE OR REPLACE FUNCTION pgq_set_limit(
    name text, concurrency integer DEFAULT NULL, rate integer DEFAULT NULL, period double precision DEFAULT NULL,
    smooth boolean DEFAULT false, strict boolean DEFAULT NULL, scope text DEFAULT 'key', pinned boolean DEFAULT true
) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO pgq_limit AS l (scope, name, concurrency, rate, period, smooth, strict, pinned)
    VALUES (pgq_set_limit.scope, pgq_set_limit.name, pgq_set_limit.concurrency, pgq_set_limit.rate, pgq_set_limit.period,
            pgq_set_limit.smooth, coalesce(pgq_set_limit.strict, false), pgq_set_limit.pinned)
    ON CONFLICT (scope, name) DO UPDATE
       SET concurrency = excluded.concurrency, rate = excluded.rate, period = excluded.period, smooth = excluded.smooth,
           strict = coalesce(pgq_set_limit.strict, l.strict), pinned = excluded.pinned, updated_at = clock_timestamp();
    PERFORM pgq_wake();
END
$$;
COMMENT ON FUNCTION pgq_set_limit IS
    'Sets a limit of a key or a queue: concurrency, or rate in period seconds; 0 holds all, NULL is no limit.';

-- Takes a limit away.
CREATE OR REPLACE FUNCTION pgq_drop_limit(name text, scope text DEFAULT 'key') RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM pgq_limit l WHERE l.scope = pgq_drop_limit.scope AND l.name = pgq_drop_limit.name;
    IF FOUND THEN
        PERFORM pgq_wake();
    END IF;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION pgq_drop_limit IS 'Takes the limit of a key or a queue away. Returns whether there was one.';

DO $$
BEGIN
    PERFORM pgq_pin_search_path();
END
$$;
