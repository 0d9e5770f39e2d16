-- A part of claim_keyed.sql: how many tasks the rate of the limit {limit} lets start now, for {of}.
-- What is counted lies in pgq_rate as pairs of a time, which is the end of a sixtieth of the window, and a number. Since that
-- time is never before the claims that it stands for, no window of that length has more than `most`; a task may start late
-- by a sixtieth. (Times, not numbers of cells: they stay right if the limit is changed. Those far ahead are of a clock that
-- was set back since.)
-- Smooth: what 50 ms of the rate let start, in a window that goes a whole number of times into the period: so those windows
-- together never have more than the rate.
-- One claim takes no more than about its own time's worth, at least 1: what a worker gives back unstarted is lost to the rate.
CASE WHEN {limit}.rate IS NOT NULL THEN (
    SELECT greatest(0, least(
               win.most - coalesce((
                   SELECT sum((start ->> 1)::bigint)
                     FROM pgq_rate r
                    CROSS JOIN LATERAL jsonb_array_elements(r.starts) AS start
                    WHERE r.scope = '{scope}' AND r.name = {of}
                      AND (start ->> 0)::float8 > bound.now - win.length
                      AND (start ->> 0)::float8 < bound.now + 2 * win.length), 0),
               greatest(1, floor(win.most / win.length * %(seconds)s::float8))))::bigint
      FROM (SELECT CASE WHEN {limit}.smooth THEN floor({limit}.rate / even.windows) ELSE {limit}.rate END AS most,
                   CASE WHEN {limit}.smooth THEN {limit}.period / even.windows ELSE {limit}.period END
                   AS length
              FROM (SELECT greatest(1, floor({limit}.rate / greatest(1, ceil({limit}.rate * 0.05 / {limit}.period)))) AS windows)
                   even) win)
END
