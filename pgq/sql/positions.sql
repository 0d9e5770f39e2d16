-- The last position that was drawn, and the lowest watermark. Before the first one, last_value is the one that comes next.
SELECT last_value - (NOT is_called)::integer, (SELECT min(low) FROM pgq_lane) FROM pgq_position
