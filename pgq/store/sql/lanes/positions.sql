-- Returns the last position that was drawn, and the lowest watermark. Before the first draw, last_value is the next one.
-- Of keys: the last strand drawn and the watermark of strands, how often making lanes was left to upkeep, and whether any
-- lane is in use.
SELECT last_value - (NOT is_called)::integer AS last, (SELECT min(low) FROM pgq_lane) AS lowest,
       (SELECT last_value - (NOT is_called)::integer FROM pgq_strand) AS strand,
       (SELECT last_value FROM pgq_strand_low) AS strand_low,
       (SELECT last_value FROM pgq_keyed_missed) AS missed,
       EXISTS (SELECT FROM pgq_keyed WHERE idle_since IS NULL) AS keyed
  FROM pgq_position
