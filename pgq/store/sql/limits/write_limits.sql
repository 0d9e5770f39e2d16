-- Writes the limits that code gives, but over none that an operator has set. Those that are as they should be are not
-- touched, so that workers that start together do not wait for each other. Returns those that were written.
INSERT INTO pgq_limit AS l (scope, name, concurrency, rate, period, smooth, strict)
SELECT given.*
  FROM unnest(%(scopes)s::text[], %(names)s::text[], %(concurrencies)s::integer[], %(rates)s::integer[],
              %(periods)s::float8[], %(smooths)s::boolean[], %(stricts)s::boolean[])
       AS given (scope, name, concurrency, rate, period, smooth, strict)
 WHERE NOT EXISTS (SELECT FROM pgq_limit old
                    WHERE old.scope = given.scope AND old.name = given.name
                      AND (old.pinned OR (old.concurrency, old.rate, old.period, old.smooth, old.strict)
                           IS NOT DISTINCT FROM (given.concurrency, given.rate, given.period, given.smooth, given.strict)))
 ORDER BY given.scope, given.name
ON CONFLICT (scope, name) DO UPDATE
   SET concurrency = excluded.concurrency, rate = excluded.rate, period = excluded.period, smooth = excluded.smooth,
       strict = excluded.strict, updated_at = clock_timestamp()
 WHERE NOT l.pinned
RETURNING l.scope, l.name
