-- The last position that was drawn.
SELECT last_value FROM pgq_position
