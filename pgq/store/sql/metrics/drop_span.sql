-- Deletes rows of one span that are older than so many hours. Returns how many.
WITH gone AS (
    DELETE FROM {table}
     WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table}
                              WHERE span = %(span)s AND at < statement_timestamp() - %(hours)s * interval '1 hour'
                              ORDER BY at
                              LIMIT %(limit)s
                                FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone
