-- A part of the statements that make claimed tasks ready again. They name as `lost` the rows: id, queue, key, priority,
-- position, and whether the row goes to the end of its lane; `placed` has the position that each keeps, or NULL.
-- A row that keeps its position may lie below its lane's watermark, where no claim reads. So the lane is locked first,
-- which upkeep does too before it searches for the first ready row, and the watermark is lowered to just below the row.
-- Example: the watermark is at 70 and the row at 40 becomes ready; the watermark goes to 39.
-- With SKIP LOCKED, a row whose lane another session has locked goes to the end: the supervisor renews leases besides,
-- and must not wait for long for a leader that has frozen.
-- A row with a key has a lane of pgq_keyed, which comes into use again. Where that lane is gone, `laneless`, the statement
-- calls pgq_keyed_ready at its end. (Not for all rows: two updates of a lane by one statement are an error.)
lane AS MATERIALIZED (
    SELECT l.queue, l.priority, l.low
      FROM pgq_lane l
     WHERE (l.queue, l.priority) IN (SELECT queue, priority FROM lost WHERE key IS NULL)
     ORDER BY l.queue, l.priority
       {lock}
), keyed_lane AS MATERIALIZED (
    SELECT l.queue, l.key, l.priority, l.low, l.idle_since
      FROM pgq_keyed l
     WHERE (l.queue, l.key, l.priority) IN (SELECT queue, key, priority FROM lost WHERE key IS NOT NULL)
     ORDER BY l.queue, l.key, l.priority
       {lock}
), placed AS MATERIALIZED (
    -- A row of a strict key keeps its place in any case: at the end, those behind it would go before it. If its lane is locked,
    -- the sweep lowers the watermark.
    SELECT lost.*, CASE WHEN (coalesce(lane.low, keyed_lane.low) IS NOT NULL AND NOT lost.to_end)
                          OR (lost.key IS NOT NULL AND EXISTS (
                              SELECT FROM pgq_limit l
                               WHERE l.scope = 'key' AND l.name = split_part(lost.key, ':', 1) AND l.strict))
                        THEN lost.position END AS place,
           lost.key IS NOT NULL AND keyed_lane.low IS NULL AS laneless
      FROM lost
      LEFT JOIN lane ON lost.key IS NULL AND lane.queue = lost.queue AND lane.priority = lost.priority
      LEFT JOIN keyed_lane
        ON keyed_lane.queue = lost.queue AND keyed_lane.key = lost.key AND keyed_lane.priority = lost.priority
), lowered AS (
    UPDATE pgq_lane l
       SET low = first.place - 1
      FROM lane
      JOIN (SELECT queue, priority, min(place) AS place FROM placed WHERE key IS NULL GROUP BY queue, priority) first
           USING (queue, priority)
     WHERE l.queue = lane.queue AND l.priority = lane.priority AND lane.low >= first.place
), keyed_lowered AS (
    UPDATE pgq_keyed l
       SET low = least(keyed_lane.low, first.place - 1), idle_since = NULL
      FROM keyed_lane
      JOIN (SELECT queue, key, priority, min(place) AS place FROM placed WHERE key IS NOT NULL GROUP BY queue, key, priority) first
           USING (queue, key, priority)
     WHERE l.queue = keyed_lane.queue AND l.key = keyed_lane.key AND l.priority = keyed_lane.priority
       AND (keyed_lane.low >= first.place OR keyed_lane.idle_since IS NOT NULL)
)
