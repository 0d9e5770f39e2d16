-- Enqueues one task as enqueue.sql does, and returns when: TaskResult.enqueued_at of django.tasks is what the row says.
INSERT INTO pgq_queue ({columns}) VALUES ({values}) RETURNING enqueued_at
