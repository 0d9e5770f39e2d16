-- Returns one row for each check: what holds and what does not; see migrations_sql/0002_operators.up.sql.
SELECT "check", status, detail, advice FROM pgq_check(needed => %(needed)s)
