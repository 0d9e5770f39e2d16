-- Makes the lanes of keys that are missing.
SELECT pgq_make_keyed(%(queues)s::text[], %(keys)s::text[], %(priorities)s::smallint[])
