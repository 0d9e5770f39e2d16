"""Schedules of cron, django-crontab and Celery beat become schedules here: rows, or a module of them."""
