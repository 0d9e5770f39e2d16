-- Deletes rows of one span that are older than so many hours. Returns how many.
WITH gone AS (
    DELETE FROM {table}
     -- Each span is a partition, so within one it is a row's address.
     WHERE span = %(span)s
       AND ctid = ANY (ARRAY(SELECT ctid FROM {table}
                              WHERE span = %(span)s AND at < statement_timestamp() - %(hours)s * interval '1 hour'
                              ORDER BY at
                              LIMIT %(limit)s
                                FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone
