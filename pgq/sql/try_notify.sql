-- Whether a notification can be sent: the commit of this fails if not, instead of that of somebody who enqueues.
-- Nobody listens on this channel. Returns how full the queue is.
SELECT pg_notification_queue_usage(), pg_notify('pgq_probe', '')
