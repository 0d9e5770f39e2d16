"""Schedules of cron, django-crontab, Celery beat and APScheduler become schedules here: rows, or a module of them."""
