-- What holds and what does not, one row for each check; see migrations_sql/0002_operators.up.sql.
SELECT "check", status, detail, advice FROM pgq_check(needed => %(needed)s)
