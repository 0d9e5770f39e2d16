-- Reads the {limit} finished tasks that were enqueued last, and returns for each queue those that finished in the last so
-- many seconds: how many, how many successes, how long they ran, and how long ago the first of all of them finished.
-- (statement_timestamp, since no index serves a bound that clock_timestamp might change from row to row.)
SELECT t.queue, count(*) AS finished, count(*) FILTER (WHERE t.success) AS succeeded,
       coalesce(sum(extract(epoch FROM t.stopped - t.started)), 0)::float8 AS seconds,
       max(max(extract(epoch FROM clock_timestamp() - t.stopped))) OVER ()::float8 AS age
  FROM (SELECT queue, success, started, stopped
          FROM pgq_task
         WHERE id >= pgq_uuid7_floor(statement_timestamp() - interval '1 day')
         ORDER BY id DESC
         LIMIT {limit}) t
 WHERE t.stopped > clock_timestamp() - %(seconds)s * interval '1 second'
 GROUP BY t.queue
