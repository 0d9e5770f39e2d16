-- The clock that counts.
SELECT clock_timestamp()
