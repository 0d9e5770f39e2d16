-- Returns the time of the database's clock, which is the one that counts.
SELECT clock_timestamp()
