-- Makes PostgreSQL check these constraints now (IMMEDIATE) or when the transaction ends (DEFERRED).
SET CONSTRAINTS {names} {mode}
