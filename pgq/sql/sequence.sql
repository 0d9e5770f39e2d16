-- The last position that was drawn. Before the first one, last_value is the position that comes next.
SELECT last_value - (NOT is_called)::integer FROM pgq_position
