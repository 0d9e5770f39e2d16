-- Sends a notification on a channel that no session listens to: if the queue of notifications is full, the commit of this
-- fails, not that of a process that enqueues. Returns how full the queue is.
SELECT pg_notification_queue_usage(), pg_notify('pgq_probe', '')
