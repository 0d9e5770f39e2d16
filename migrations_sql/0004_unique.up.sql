-- pgq 0004: unique tasks, tasks that expire, and tasks that are cancelled before they run.

-- If a long transaction holds one of pgq's tables, give up: all other sessions would queue behind this statement.
SET LOCAL lock_timeout = '2s';

INSERT INTO pgq_schema (version) VALUES (4) ON CONFLICT DO NOTHING;

-- Of what kind the key is, psql need not say: it is unique until a worker claims the task.
ALTER TABLE pgq_queue
    DROP CONSTRAINT IF EXISTS pgq_queue_unique_check,
    ADD CONSTRAINT pgq_queue_unique_check CHECK (unique_until IN ('start', 'end')
                                                 AND unique_key <> '' AND octet_length(unique_key) <= 1000);
COMMENT ON COLUMN pgq_queue.unique_until IS
    'Until when it is unique: start (the next claim) or end (it leaves the queue). NULL: as start. It stays when the key is gone.';

-- Of all live tasks one at most has a key. No statement gives a row its key but the INSERT: so no change of a task's state
-- can ever fail here.
CREATE UNIQUE INDEX IF NOT EXISTS pgq_queue_unique ON pgq_queue (unique_key) WHERE unique_key IS NOT NULL;

-- Keys that are taken for a time, whatever has become of the task.
CREATE TABLE IF NOT EXISTS pgq_unique (
    key    text COLLATE "C" PRIMARY KEY,
    task   uuid             NOT NULL,
    until  timestamptz      NOT NULL,
    CONSTRAINT pgq_unique_key_check   CHECK (key <> '' AND octet_length(key) <= 1000),
    CONSTRAINT pgq_unique_times_check CHECK (until > '0001-01-02 00:00Z' AND until < '9999-12-30 00:00Z')
) WITH (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE pgq_unique IS 'Unique keys that are taken for a time: which task took each, and until when. Upkeep deletes them.';
COMMENT ON COLUMN pgq_unique.key IS 'The unique key.';
COMMENT ON COLUMN pgq_unique.task IS 'Id of the task that took it.';
COMMENT ON COLUMN pgq_unique.until IS 'Until when it is taken.';
CREATE INDEX IF NOT EXISTS pgq_unique_until ON pgq_unique (until);

-- What upkeep reads: tasks that have a time to start by, and have not started.
CREATE INDEX IF NOT EXISTS pgq_queue_expires ON pgq_queue (expires_at)
    WHERE expires_at IS NOT NULL AND lock IS NULL AND attempts = 0;
-- What upkeep reads: tasks that were cancelled and that no worker holds.
CREATE INDEX IF NOT EXISTS pgq_queue_cancelled ON pgq_queue (id) WHERE cancelled AND lock IS NULL;
