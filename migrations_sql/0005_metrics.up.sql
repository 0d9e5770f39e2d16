-- pgq 0005: numbers over time. Workers count what they settle, the leader adds it up; nothing is counted from pgq_task.

-- If a long transaction holds one of pgq's tables, give up: all other sessions would queue behind this statement.
SET LOCAL lock_timeout = '2s';

INSERT INTO pgq_schema (version) VALUES (5) ON CONFLICT DO NOTHING;

ALTER TABLE pgq_queue ADD COLUMN IF NOT EXISTS ready_at timestamptz
    CONSTRAINT pgq_queue_ready_check CHECK (ready_at > '0001-01-02 00:00Z' AND ready_at < '9999-12-30 00:00Z');
COMMENT ON COLUMN pgq_queue.ready_at IS
    'Since when it could run, if that is not enqueued_at: it was due, put back, or the last task it waited for had ended.';

-- What workers have counted since their last flush. UNLOGGED, since it is written each 10 s by each worker and read once:
-- a crash of PostgreSQL, and a failover to a standby, lose what was not folded yet.
-- A row stays a while after it was folded: a worker that does not know whether its commit took place sends it again.
CREATE UNLOGGED TABLE IF NOT EXISTS pgq_metric_raw (
    worker  uuid        NOT NULL,
    seq     integer     NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    body    jsonb       NOT NULL,
    folded  timestamptz,
    PRIMARY KEY (worker, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE pgq_metric_raw IS 'What each worker has counted, on its way to pgq_metric and pgq_total. Lost in a crash of PostgreSQL.';
COMMENT ON COLUMN pgq_metric_raw.worker IS 'Id of the worker.';
COMMENT ON COLUMN pgq_metric_raw.at IS 'When it was written.';
COMMENT ON COLUMN pgq_metric_raw.body IS 'The counts, by queue, function and outcome, and the histograms.';
COMMENT ON COLUMN pgq_metric_raw.folded IS 'When it was added up. NULL: not yet.';
COMMENT ON COLUMN pgq_metric_raw.seq IS 'The number of the flush: one that is sent twice is counted once.';
CREATE INDEX IF NOT EXISTS pgq_metric_raw_new ON pgq_metric_raw (at) WHERE folded IS NULL;
CREATE INDEX IF NOT EXISTS pgq_metric_raw_old ON pgq_metric_raw (folded) WHERE folded IS NOT NULL;

-- A partition for each span: a planner that only knew how many rows are of a span, and how many are of a time, would take the
-- rows of both for many times what they are, and read all of the table.
CREATE TABLE IF NOT EXISTS pgq_metric (
    span         smallint         NOT NULL,
    at           timestamptz      NOT NULL,
    queue        text COLLATE "C" NOT NULL,
    func         text COLLATE "C" NOT NULL,
    succeeded    bigint           NOT NULL DEFAULT 0,
    failed       bigint           NOT NULL DEFAULT 0,
    retried      bigint           NOT NULL DEFAULT 0,
    cancelled    bigint           NOT NULL DEFAULT 0,
    timed_out    bigint           NOT NULL DEFAULT 0,
    crashed      bigint           NOT NULL DEFAULT 0,
    parked       bigint           NOT NULL DEFAULT 0,
    discarded    bigint           NOT NULL DEFAULT 0,
    run_us_sum   bigint           NOT NULL DEFAULT 0,
    run_us_max   bigint           NOT NULL DEFAULT 0,
    run_from     smallint,
    run_hist     bigint[],
    wait_us_sum  bigint           NOT NULL DEFAULT 0,
    wait_us_max  bigint           NOT NULL DEFAULT 0,
    wait_from    smallint,
    wait_hist    bigint[],
    PRIMARY KEY (span, at, queue, func),
    CONSTRAINT pgq_metric_span_check CHECK (span IN (1, 10, 60, 1440))
) PARTITION BY LIST (span);
CREATE TABLE IF NOT EXISTS pgq_metric_1 PARTITION OF pgq_metric FOR VALUES IN (1)
    WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
CREATE TABLE IF NOT EXISTS pgq_metric_10 PARTITION OF pgq_metric FOR VALUES IN (10)
    WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
CREATE TABLE IF NOT EXISTS pgq_metric_60 PARTITION OF pgq_metric FOR VALUES IN (60)
    WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
CREATE TABLE IF NOT EXISTS pgq_metric_1440 PARTITION OF pgq_metric FOR VALUES IN (1440)
    WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE pgq_metric IS 'What was settled, by queue and function: minutes of 2 days, ten minutes of 14 days, hours and days of 400 days.';
COMMENT ON COLUMN pgq_metric.span IS 'Minutes that the row is about, from `at` on: 1, 10, 60 or 1440. Each settlement is in one row of each.';
COMMENT ON COLUMN pgq_metric.at IS 'When that time begins.';
COMMENT ON COLUMN pgq_metric.queue IS 'Name of the queue.';
COMMENT ON COLUMN pgq_metric.succeeded IS 'How many tasks returned.';
COMMENT ON COLUMN pgq_metric.failed IS 'How many failed, with no attempt left.';
COMMENT ON COLUMN pgq_metric.retried IS 'How many attempts failed that are followed by another one.';
COMMENT ON COLUMN pgq_metric.cancelled IS 'How many were cancelled.';
COMMENT ON COLUMN pgq_metric.timed_out IS 'How many failed by their timeout.';
COMMENT ON COLUMN pgq_metric.crashed IS 'How many attempts ended with the death of their worker.';
COMMENT ON COLUMN pgq_metric.parked IS 'How many rows could not run as they were.';
COMMENT ON COLUMN pgq_metric.discarded IS 'How many ended by Discard.';
COMMENT ON COLUMN pgq_metric.run_us_sum IS 'Microseconds that all runs took.';
COMMENT ON COLUMN pgq_metric.run_us_max IS 'Microseconds that the longest took.';
COMMENT ON COLUMN pgq_metric.run_from IS 'The first bucket of run_hist.';
COMMENT ON COLUMN pgq_metric.wait_us_sum IS 'Microseconds that all waited from ready to claimed.';
COMMENT ON COLUMN pgq_metric.wait_us_max IS 'Microseconds that the longest waited.';
COMMENT ON COLUMN pgq_metric.wait_from IS 'The first bucket of wait_hist.';
COMMENT ON COLUMN pgq_metric.func IS 'Its first 200 characters; (other): the functions beyond the first 200 of that time.';
COMMENT ON COLUMN pgq_metric.run_hist IS 'How many runs took as long as each bucket says, beginning with the bucket run_from; see pgq_bucket.';
COMMENT ON COLUMN pgq_metric.wait_hist IS 'The same of the time from ready to claimed.';

CREATE TABLE IF NOT EXISTS pgq_total (
    queue        text COLLATE "C" NOT NULL,
    func         text COLLATE "C" NOT NULL,
    succeeded    bigint           NOT NULL DEFAULT 0,
    failed       bigint           NOT NULL DEFAULT 0,
    retried      bigint           NOT NULL DEFAULT 0,
    cancelled    bigint           NOT NULL DEFAULT 0,
    timed_out    bigint           NOT NULL DEFAULT 0,
    crashed      bigint           NOT NULL DEFAULT 0,
    parked       bigint           NOT NULL DEFAULT 0,
    discarded    bigint           NOT NULL DEFAULT 0,
    run_us_sum   bigint           NOT NULL DEFAULT 0,
    run_us_max   bigint           NOT NULL DEFAULT 0,
    run_from     smallint,
    run_hist     bigint[],
    wait_us_sum  bigint           NOT NULL DEFAULT 0,
    wait_us_max  bigint           NOT NULL DEFAULT 0,
    wait_from    smallint,
    wait_hist    bigint[],
    since        timestamptz      NOT NULL DEFAULT clock_timestamp(),
    updated_at   timestamptz      NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (queue, func)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE pgq_total IS 'The same since the beginning: counters that only grow. A row goes when its function was idle for 90 days.';
COMMENT ON COLUMN pgq_total.queue IS 'Name of the queue.';
COMMENT ON COLUMN pgq_total.func IS 'Its first 200 characters; (other): the functions beyond the first 2,000.';
COMMENT ON COLUMN pgq_total.succeeded IS 'How many tasks returned.';
COMMENT ON COLUMN pgq_total.failed IS 'How many failed, with no attempt left.';
COMMENT ON COLUMN pgq_total.retried IS 'How many attempts failed that are followed by another one.';
COMMENT ON COLUMN pgq_total.cancelled IS 'How many were cancelled.';
COMMENT ON COLUMN pgq_total.timed_out IS 'How many failed by their timeout.';
COMMENT ON COLUMN pgq_total.crashed IS 'How many attempts ended with the death of their worker.';
COMMENT ON COLUMN pgq_total.parked IS 'How many rows could not run as they were.';
COMMENT ON COLUMN pgq_total.discarded IS 'How many ended by Discard.';
COMMENT ON COLUMN pgq_total.run_us_sum IS 'Microseconds that all runs took.';
COMMENT ON COLUMN pgq_total.run_us_max IS 'Microseconds that the longest took.';
COMMENT ON COLUMN pgq_total.run_from IS 'The first bucket of run_hist.';
COMMENT ON COLUMN pgq_total.wait_us_sum IS 'Microseconds that all waited from ready to claimed.';
COMMENT ON COLUMN pgq_total.wait_us_max IS 'Microseconds that the longest waited.';
COMMENT ON COLUMN pgq_total.wait_from IS 'The first bucket of wait_hist.';
COMMENT ON COLUMN pgq_total.run_hist IS
    'How many runs took as long as each bucket says, beginning with the bucket run_from; see pgq_bucket.';
COMMENT ON COLUMN pgq_total.wait_hist IS 'The same of the time from ready to claimed.';
COMMENT ON COLUMN pgq_total.since IS 'When counting began.';
COMMENT ON COLUMN pgq_total.updated_at IS 'When it was added to last.';

CREATE TABLE IF NOT EXISTS pgq_gauge (
    span          smallint         NOT NULL DEFAULT 1,
    at            timestamptz      NOT NULL,
    queue         text COLLATE "C" NOT NULL,
    ready         bigint           NOT NULL,
    running       bigint           NOT NULL,
    waiting       bigint           NOT NULL,
    parked        bigint           NOT NULL,
    oldest_ready  double precision,
    workers       integer          NOT NULL DEFAULT 0,
    busy          integer          NOT NULL DEFAULT 0,
    paused        boolean          NOT NULL DEFAULT false,
    exact         boolean          NOT NULL DEFAULT true,
    PRIMARY KEY (span, at, queue),
    CONSTRAINT pgq_gauge_span_check CHECK (span IN (1, 10, 60, 1440))
) PARTITION BY LIST (span);
CREATE TABLE IF NOT EXISTS pgq_gauge_1 PARTITION OF pgq_gauge FOR VALUES IN (1);
CREATE TABLE IF NOT EXISTS pgq_gauge_10 PARTITION OF pgq_gauge FOR VALUES IN (10);
CREATE TABLE IF NOT EXISTS pgq_gauge_60 PARTITION OF pgq_gauge FOR VALUES IN (60);
CREATE TABLE IF NOT EXISTS pgq_gauge_1440 PARTITION OF pgq_gauge FOR VALUES IN (1440);
COMMENT ON TABLE pgq_gauge IS 'How many tasks each queue had at a moment, once a minute; kept as pgq_metric is.';
COMMENT ON COLUMN pgq_gauge.span IS 'Minutes that the row stands for: 1, 10, 60 or 1440.';
COMMENT ON COLUMN pgq_gauge.at IS 'The moment.';
COMMENT ON COLUMN pgq_gauge.ready IS 'Tasks that could be claimed.';
COMMENT ON COLUMN pgq_gauge.running IS 'Tasks that workers hold.';
COMMENT ON COLUMN pgq_gauge.waiting IS 'Tasks that wait for a time or for other tasks.';
COMMENT ON COLUMN pgq_gauge.parked IS 'Tasks that cannot run as they are.';
COMMENT ON COLUMN pgq_gauge.workers IS 'Workers that serve the queue.';
COMMENT ON COLUMN pgq_gauge.busy IS 'How many of them run a task.';
COMMENT ON COLUMN pgq_gauge.paused IS 'Whether nothing is claimed from the queue.';
COMMENT ON COLUMN pgq_gauge.queue IS 'Empty: of all queues.';
COMMENT ON COLUMN pgq_gauge.oldest_ready IS 'Seconds since the first ready task became ready. NULL: none was.';
COMMENT ON COLUMN pgq_gauge.exact IS 'False: what was more than could be counted is an estimate.';

CREATE TABLE IF NOT EXISTS pgq_mark (
    id      bigint      PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    label   text        NOT NULL,
    kind    text        NOT NULL DEFAULT 'mark',
    author  text,
    CONSTRAINT pgq_mark_label_check CHECK (label <> '' AND length(label) <= 200),
    CONSTRAINT pgq_mark_kind_check  CHECK (kind IN ('mark', 'release'))
);
COMMENT ON TABLE pgq_mark IS 'Moments to show in charts: new releases, and what pgq_mark() was told.';
COMMENT ON COLUMN pgq_mark.id IS 'Drawn from a sequence.';
COMMENT ON COLUMN pgq_mark.at IS 'The moment.';
COMMENT ON COLUMN pgq_mark.label IS 'What to show, 200 characters at most.';
COMMENT ON COLUMN pgq_mark.kind IS 'mark, or release, of which there is one with each label.';
COMMENT ON COLUMN pgq_mark.author IS 'Who made the mark.';
CREATE INDEX IF NOT EXISTS pgq_mark_at ON pgq_mark (at);
-- A release is marked once, however many pools start with it.
CREATE UNIQUE INDEX IF NOT EXISTS pgq_mark_release ON pgq_mark (label) WHERE kind = 'release';

CREATE TABLE IF NOT EXISTS pgq_finding (
    "check"     text        PRIMARY KEY,
    status      text        NOT NULL,
    detail      text        NOT NULL DEFAULT '',
    advice      text        NOT NULL DEFAULT '',
    since       timestamptz NOT NULL DEFAULT clock_timestamp(),
    checked_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE pgq_finding IS 'What pgq_check() found when upkeep last ran it, once a minute.';
COMMENT ON COLUMN pgq_finding."check" IS 'Name of the check.';
COMMENT ON COLUMN pgq_finding.status IS 'ok, warning or problem.';
COMMENT ON COLUMN pgq_finding.detail IS 'What was found.';
COMMENT ON COLUMN pgq_finding.advice IS 'What to do.';
COMMENT ON COLUMN pgq_finding.checked_at IS 'When upkeep last ran it.';
COMMENT ON COLUMN pgq_finding.since IS 'Since when the status is this one.';

CREATE OR REPLACE FUNCTION pgq_bucket(bucket integer) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    -- Bucket 2b + s holds the microseconds of b bits whose second bit is s: two to each power of two.
    SELECT CASE WHEN bucket < 2 THEN 0 WHEN bucket < 4 THEN 1
                ELSE (2 + bucket % 2) * power(2::float8, bucket / 2 - 2) END / 1000000
$$;
COMMENT ON FUNCTION pgq_bucket IS 'The seconds at which a bucket of a histogram begins; it ends where the next one begins.';

CREATE OR REPLACE FUNCTION pgq_hist_add(a_from integer, a bigint[], b_from integer, b bigint[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN a IS NULL THEN b WHEN b IS NULL THEN a ELSE (
        SELECT array_agg(coalesce(a[i - a_from + 1], 0) + coalesce(b[i - b_from + 1], 0) ORDER BY i)
          FROM generate_series(least(a_from, b_from), greatest(a_from + cardinality(a), b_from + cardinality(b)) - 1) i)
        END
$$;
COMMENT ON FUNCTION pgq_hist_add IS 'The sum of two histograms; it begins with the lower one of the two first buckets.';

CREATE OR REPLACE FUNCTION pgq_quantile(buckets integer[], counts bigint[], share double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT AS $$
    WITH bucket AS (
        SELECT number, count, sum(count) OVER (ORDER BY number) AS up_to
          FROM unnest(buckets, counts) h (number, count) WHERE count > 0
    ), wanted AS (
        SELECT share * max(up_to)::float8 AS rank FROM bucket
    )
    SELECT pgq_bucket(number) + (pgq_bucket(CASE number WHEN 0 THEN 2 WHEN 2 THEN 4 ELSE number + 1 END) - pgq_bucket(number))
           * greatest(rank - (up_to - count)::float8, 0) / count
      FROM bucket, wanted
     WHERE up_to >= rank
     ORDER BY number
     LIMIT 1
$$;
COMMENT ON FUNCTION pgq_quantile IS
    'The seconds that a share (0 to 1) of the times do not exceed that were counted in these buckets, wrong by a fifth at most.';

CREATE OR REPLACE FUNCTION pgq_mark(label text, kind text DEFAULT 'mark', author text DEFAULT current_user) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO pgq_mark (label, kind, author) VALUES (label, kind, author) ON CONFLICT DO NOTHING;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION pgq_mark IS 'Marks this moment in the charts. Returns false if it is a release that was marked before.';

DROP VIEW IF EXISTS pgq_queue_depth, pgq_failures_by_function;
CREATE VIEW pgq_queue_depth AS
-- 100,000 index entries in all, 10,000 for one lane, and as many again of tasks with a key, which are counted by queue: so it
-- takes no longer with a million tasks, or a thousand lanes.
WITH RECURSIVE named (queue) AS (
    SELECT min(queue) FROM pgq_keyed
     UNION ALL
    SELECT (SELECT min(k.queue) FROM pgq_keyed k WHERE k.queue > named.queue) FROM named WHERE named.queue IS NOT NULL
), bound AS (
    SELECT greatest(least(10000, 100000 / greatest((SELECT count(*) FROM pgq_lane), 1)), 1) AS lane,
           greatest(least(10000, 100000 / greatest((SELECT count(*) FROM named), 1)), 1) AS keyed
), other AS (
    SELECT queue, priority, 'running' AS state
      FROM (SELECT queue, priority FROM pgq_queue WHERE lock IS NOT NULL ORDER BY lock LIMIT 10000) r
     UNION ALL
    SELECT queue, priority, 'waiting'
      FROM (SELECT queue, priority FROM pgq_queue WHERE run_after IS NOT NULL AND parked IS NULL ORDER BY run_after LIMIT 10000) w
     UNION ALL
    -- No index has those that wait for other tasks: among the first rows only.
    SELECT queue, priority, 'waiting'
      FROM (SELECT queue, priority, remaining, run_after, parked FROM pgq_queue LIMIT 10000) c
     WHERE remaining IS NOT NULL AND run_after IS NULL AND parked IS NULL
     UNION ALL
    SELECT queue, priority, 'parked'
      FROM (SELECT queue, priority FROM pgq_queue WHERE parked IS NOT NULL ORDER BY id LIMIT 10000) p
), counted AS (
    SELECT queue, priority, count(*) FILTER (WHERE state = 'running') AS running,
           count(*) FILTER (WHERE state = 'waiting') AS waiting, count(*) FILTER (WHERE state = 'parked') AS parked
      FROM other GROUP BY queue, priority
), part AS (
    SELECT l.queue, l.priority, lane.count, lane.since, lane.count >= (SELECT lane FROM bound) AS more
      FROM pgq_lane l
     CROSS JOIN LATERAL (
           SELECT count(*) AS count, (array_agg(coalesce(q.ready_at, q.enqueued_at)))[1] AS since
             FROM (SELECT q.ready_at, q.enqueued_at
                     FROM pgq_queue q
                    WHERE q.queue = l.queue AND q.priority = l.priority AND q.position > l.low
                      AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NULL
                    ORDER BY q.position
                    LIMIT (SELECT lane FROM bound)) q) lane
     UNION ALL
    SELECT n.queue, k.priority, count(*), min(k.since), sum(count(*)) OVER (PARTITION BY n.queue) >= (SELECT keyed FROM bound)
      FROM named n
     CROSS JOIN LATERAL (
           SELECT q.priority, coalesce(q.ready_at, q.enqueued_at) AS since
             FROM pgq_queue q
            WHERE q.queue = n.queue
              AND q.lock IS NULL AND q.run_after IS NULL AND q.parked IS NULL AND q.remaining IS NULL AND q.key IS NOT NULL
            LIMIT (SELECT keyed FROM bound)) k
     GROUP BY n.queue, k.priority
), ready AS (
    SELECT queue, priority, sum(count)::bigint AS count, min(since) AS since, bool_or(more) AS more
      FROM part GROUP BY queue, priority
)
SELECT queue, priority, coalesce(r.count, 0) AS ready, coalesce(c.waiting, 0) AS waiting, coalesce(c.running, 0) AS running,
       coalesce(c.parked, 0) AS parked, clock_timestamp() - r.since AS oldest_ready,
       EXISTS (SELECT FROM pgq_lane p WHERE p.queue = coalesce(r.queue, c.queue) AND p.paused) AS paused,
       coalesce(r.more, false) OR coalesce(greatest(c.waiting, c.running, c.parked) >= 10000, false) AS more
  FROM ready r
  FULL JOIN counted c USING (queue, priority)
 WHERE r.count > 0 OR c.queue IS NOT NULL
 ORDER BY queue, priority DESC;
COMMENT ON VIEW pgq_queue_depth IS
    'How many tasks each queue and priority holds, by state, and since when the first ready one is ready. more: there are more than were counted.';

CREATE VIEW pgq_failures_by_function AS
SELECT func, exception, count(*) AS failures, max(stopped) AS last, (array_agg(message ORDER BY stopped DESC))[1] AS last_message,
       (array_agg(id ORDER BY stopped DESC))[1] AS last_id
  FROM (SELECT * FROM pgq_task
         WHERE NOT success AND id >= pgq_uuid7_floor(statement_timestamp() - interval '7 days')
         ORDER BY id DESC
         LIMIT 10000) latest
 WHERE stopped > statement_timestamp() - interval '24 hours'
 GROUP BY func, exception
 ORDER BY failures DESC;
COMMENT ON VIEW pgq_failures_by_function IS
    'Failures of the last 24 hours by function and exception, among the 10,000 that were enqueued last, in 7 days. How many in all: pgq_functions.';

CREATE OR REPLACE VIEW pgq_rates AS
-- Five whole minutes: workers write what they have counted each 10 s, and upkeep adds it up each 15 s.
WITH last AS (
    SELECT date_trunc('minute', statement_timestamp() - interval '30 seconds') AS minute
), counted AS (
    SELECT m.queue, sum(m.succeeded + m.failed + m.cancelled + m.timed_out + m.discarded) AS ended,
           sum(m.failed + m.timed_out + m.discarded) AS failed, sum(m.retried) AS retried,
           sum(m.run_us_sum) AS run_us, sum((SELECT sum(n) FROM unnest(m.run_hist) n)) AS runs
      FROM last, pgq_metric m
     WHERE m.span = 1 AND m.at >= last.minute - interval '5 minutes' AND m.at < last.minute
     GROUP BY m.queue
)
SELECT queue, round(ended / 300, 3)::float8 AS ended_per_second, round(failed / 300, 3)::float8 AS failed_per_second,
       round(retried / 300, 3)::float8 AS retried_per_second,
       round(run_us / nullif(runs, 0) / 1000000, 6)::float8 AS average_seconds
  FROM counted
 ORDER BY queue;
COMMENT ON VIEW pgq_rates IS 'Tasks a second over the last five whole minutes that workers have counted, by queue.';

CREATE OR REPLACE VIEW pgq_functions AS
WITH hour AS (
    SELECT * FROM pgq_metric WHERE span = 60 AND at > statement_timestamp() - interval '24 hours'
), counted AS (
    SELECT queue, func, sum(succeeded)::bigint AS succeeded, sum(failed)::bigint AS failed, sum(retried)::bigint AS retried,
           sum(timed_out)::bigint AS timed_out, sum(crashed)::bigint AS crashed, sum(cancelled)::bigint AS cancelled,
           sum(discarded)::bigint AS discarded, sum(parked)::bigint AS parked, sum(run_us_sum)::float8 / 1000000 AS run,
           max(run_us_max)::float8 / 1000000 AS longest
      FROM hour GROUP BY queue, func
), run AS (
    SELECT queue, func, array_agg(bucket) AS buckets, array_agg(count) AS counts, sum(count)::float8 AS number
      FROM (SELECT queue, func, run_from + n::integer - 1 AS bucket, sum(count)::bigint AS count
              FROM hour, unnest(run_hist) WITH ORDINALITY h (count, n) GROUP BY 1, 2, 3) s
     GROUP BY queue, func
), wait AS (
    SELECT queue, func, array_agg(bucket) AS buckets, array_agg(count) AS counts
      FROM (SELECT queue, func, wait_from + n::integer - 1 AS bucket, sum(count)::bigint AS count
              FROM hour, unnest(wait_hist) WITH ORDINALITY h (count, n) GROUP BY 1, 2, 3) s
     GROUP BY queue, func
)
SELECT c.queue, c.func, c.succeeded, c.failed, c.retried, c.timed_out, c.crashed, c.cancelled, c.discarded, c.parked,
       round((c.run / run.number)::numeric, 6)::float8 AS average_seconds,
       round(least(pgq_quantile(run.buckets, run.counts, 0.5), c.longest)::numeric, 6)::float8 AS median_seconds,
       round(least(pgq_quantile(run.buckets, run.counts, 0.95), c.longest)::numeric, 6)::float8 AS p95_seconds,
       c.longest AS longest_seconds,
       round(pgq_quantile(wait.buckets, wait.counts, 0.95)::numeric, 6)::float8 AS p95_wait_seconds
  FROM counted c
  LEFT JOIN run USING (queue, func)
  LEFT JOIN wait USING (queue, func)
 ORDER BY c.failed DESC, c.succeeded DESC;
COMMENT ON VIEW pgq_functions IS 'What was settled in the last 23 hours and the hour that runs, by queue and function, how long it ran and how long it had waited; some seconds late.';

DO $$
BEGIN
    PERFORM pgq_pin_search_path();
END
$$;
