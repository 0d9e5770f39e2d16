-- Returns this minute, and whether pgq_gauge has nothing of it.
SELECT date_trunc('minute', statement_timestamp()) AS at,
       NOT EXISTS (SELECT FROM pgq_gauge WHERE span = 1 AND at = date_trunc('minute', statement_timestamp())) AS missing
