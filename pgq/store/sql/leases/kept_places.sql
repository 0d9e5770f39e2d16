-- A part of the statements that make claimed tasks ready again. They name as `lost` the rows: id, queue, priority,
-- position, and whether the row goes to the end of its lane; `placed` has the position that each keeps, or NULL.
-- A row that keeps its position may lie below its lane's watermark, where no claim reads. So the lane is locked first,
-- which upkeep does too before it searches for the first ready row, and the watermark is lowered to just below the row.
-- Example: the watermark is at 70 and the row at 40 becomes ready; the watermark goes to 39.
-- With SKIP LOCKED, a row whose lane another session has locked goes to the end: the supervisor renews leases besides,
-- and must not wait for a leader that has frozen.
lane AS MATERIALIZED (
    SELECT l.queue, l.priority, l.low
      FROM pgq_lane l
     WHERE (l.queue, l.priority) IN (SELECT queue, priority FROM lost)
     ORDER BY l.queue, l.priority
       {lock}
), placed AS MATERIALIZED (
    SELECT lost.*, CASE WHEN lane.low IS NOT NULL AND NOT lost.to_end THEN lost.position END AS place
      FROM lost
      LEFT JOIN lane USING (queue, priority)
), lowered AS (
    UPDATE pgq_lane l
       SET low = first.place - 1
      FROM lane
      JOIN (SELECT queue, priority, min(place) AS place FROM placed GROUP BY queue, priority) first
           USING (queue, priority)
     WHERE l.queue = lane.queue AND l.priority = lane.priority AND lane.low >= first.place
)
