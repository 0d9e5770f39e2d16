"""A module with a task, without models: imported before the apps are ready."""

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task


@task(priority=3)
def early(x):
    return x
