-- A part of claim_keyed.sql: draws a number for each task that the worker can run at the same time.
ARRAY(SELECT nextval('pgq_strand') FROM generate_series(1, {places}))
