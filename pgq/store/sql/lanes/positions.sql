-- Returns the last position that was drawn, and the lowest watermark. Before the first draw, last_value is the next one.
SELECT last_value - (NOT is_called)::integer, (SELECT min(low) FROM pgq_lane) FROM pgq_position
