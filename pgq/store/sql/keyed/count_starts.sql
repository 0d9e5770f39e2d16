-- Counts the tasks that this claim has taken, for the rates of their keys and queues; it runs under the locks of choose.sql, in
-- the transaction of the claim, so a claim that rolls back counts nothing. A count of 0 is of a lane that brought nothing,
-- since its rate is used up: then, too, `not_before` is set, so that the next claims leave it out without counting.
-- `limited_at`: by another setting of the limit `not_before` means nothing, so that an operator's change holds at the next claim,
-- also if this one counts while the operator's transaction is open.
-- The window is divided into sixtieths: see budget.sql. A window of "100/m" has 61 entries at most.
WITH clock AS MATERIALIZED (
    SELECT extract(epoch FROM clock_timestamp())::float8 AS now
), counted AS MATERIALIZED (
    SELECT c.scope, c.name, c.number, win.most, win.length, l.updated_at AS limited_at,
           (floor(clock.now * 60 / win.length) + 1) * win.length / 60 AS cell
      FROM unnest(%(scopes)s::text[], %(names)s::text[], %(numbers)s::integer[]) AS c (scope, name, number)
     CROSS JOIN clock
      JOIN pgq_limit l
        ON l.scope = c.scope AND l.name = CASE c.scope WHEN 'queue' THEN c.name ELSE split_part(c.name, ':', 1) END
     CROSS JOIN LATERAL (
           SELECT CASE WHEN l.smooth THEN floor(l.rate / even.windows) ELSE l.rate END AS most,
                  CASE WHEN l.smooth THEN l.period / even.windows ELSE l.period END AS length
             FROM (SELECT greatest(1, floor(l.rate / greatest(1, ceil(l.rate * 0.05 / l.period)))) AS windows)
                   even) win
     WHERE l.rate IS NOT NULL
), entries AS MATERIALIZED (
    SELECT all_of.scope, all_of.name, all_of.cell, sum(all_of.number) AS number
      FROM (SELECT c.scope, c.name, c.cell, c.number::bigint AS number FROM counted c WHERE c.number > 0
             UNION ALL
            SELECT c.scope, c.name, (start ->> 0)::float8, (start ->> 1)::bigint
              FROM counted c
             CROSS JOIN clock
              JOIN pgq_rate r ON r.scope = c.scope AND r.name = c.name
             CROSS JOIN LATERAL jsonb_array_elements(r.starts) AS start
             WHERE (start ->> 0)::float8 > clock.now - c.length AND (start ->> 0)::float8 < clock.now + 2 * c.length) all_of
     GROUP BY 1, 2, 3
)
INSERT INTO pgq_rate AS r (scope, name, starts, not_before, limited_at, updated_at)
SELECT c.scope, c.name, coalesce((SELECT jsonb_agg(jsonb_build_array(e.cell, e.number) ORDER BY e.cell)
                                    FROM entries e WHERE e.scope = c.scope AND e.name = c.name), '[]'),
       (SELECT CASE WHEN sum(e.number) >= c.most THEN to_timestamp(min(e.cell) + c.length) END
          FROM entries e WHERE e.scope = c.scope AND e.name = c.name),
       c.limited_at, clock_timestamp()
  FROM counted c
 ORDER BY c.scope, c.name
ON CONFLICT (scope, name) DO UPDATE
   SET starts = excluded.starts, not_before = excluded.not_before, limited_at = excluded.limited_at,
       updated_at = excluded.updated_at
