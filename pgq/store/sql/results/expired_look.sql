-- Reads the next {limit} results of a partition. Returns the last id among them (NULL: there are no more), and whether
-- one is still needed: it finished after `before`, its option `keep` is not over, or a collector has to read it. The limit
-- is part of the text: see claim.sql.
WITH looked AS MATERIALIZED (
    SELECT t.id, t.stopped, t.options ->> 'collector' AS collector,
           t.options ? 'keep' AND pgq_kept_until(t.options, t.stopped) > extract(epoch FROM %(now)s::timestamptz) AS kept
      FROM {partition} t
     WHERE t.id > %(after)s
     ORDER BY t.id
     LIMIT {limit}
)
SELECT (SELECT id FROM looked ORDER BY id DESC LIMIT 1),
       EXISTS (SELECT
                 FROM looked l
                WHERE l.stopped >= %(before)s::timestamptz OR l.kept
                   OR EXISTS (SELECT FROM pgq_queue q
                               WHERE q.id = CASE WHEN l.collector ~ '^[0-9a-f]{32}$' THEN l.collector::uuid END))
