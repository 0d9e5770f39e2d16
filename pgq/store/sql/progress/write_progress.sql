-- Writes what running tasks say of themselves: how far they are, and new log lines, which are added to the earlier ones.
-- Fenced by the receipt: a task whose lease is lost writes nothing. Returns the ids that were written.
WITH lock_limit AS MATERIALIZED (
    -- A session that has a row of pgq_progress locked must not hold up a worker. What follows in this transaction has the
    -- limit that it had before.
    SELECT current_setting('lock_timeout') AS before, set_config('lock_timeout', %(lock_limit)s, true)
), given AS (
    SELECT *
      FROM unnest(%(id)s::uuid[], %(receipt)s::uuid[], %(done)s::float8[], %(total)s::float8[], %(text)s::text[],
                  %(log)s::jsonb[]) AS g (task, receipt, done, total, text, log)
), held AS MATERIALIZED (
    -- A renewal does not wait for this lock, nor this for a renewal. A row that is locked otherwise is about to leave.
    SELECT g.task, g.done, g.total, g.text, g.log
      FROM pgq_queue q
      JOIN given g ON q.id = g.task AND q.receipt = g.receipt
     CROSS JOIN lock_limit
       FOR KEY SHARE OF q SKIP LOCKED
), written AS (
    INSERT INTO pgq_progress AS p (task, done, total, text, log)
    SELECT task, done, total, text, log
      FROM held
    ON CONFLICT (task) DO UPDATE
       SET done = coalesce(excluded.done, p.done),
           total = CASE WHEN excluded.done IS NULL THEN p.total ELSE excluded.total END,
           text = CASE WHEN excluded.done IS NULL THEN p.text ELSE excluded.text END,
           log = CASE
               WHEN excluded.log = '[]' THEN p.log
               WHEN jsonb_array_length(p.log || excluded.log) <= {lines} AND octet_length((p.log || excluded.log)::text) <= {bytes}
                   THEN p.log || excluded.log
               ELSE (
                   -- The newest that fit.
                   SELECT coalesce(jsonb_agg(line ORDER BY number), '[]')
                     FROM (SELECT line, number, row_number() OVER newest AS place,
                                  sum(octet_length(line::text) + 2) OVER newest AS size
                             FROM jsonb_array_elements(p.log || excluded.log) WITH ORDINALITY AS e (line, number)
                           WINDOW newest AS (ORDER BY number DESC)) counted
                    WHERE place <= {lines} AND size <= {bytes})
           END,
           updated_at = excluded.updated_at
    RETURNING task
)
SELECT ids, set_config('lock_timeout', before, true)
  FROM (SELECT coalesce(array_agg(task), '{}') AS ids FROM written) done, lock_limit
