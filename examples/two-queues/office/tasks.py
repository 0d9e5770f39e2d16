import time

from pgq.tasks import task


@task(queue="mail")
def send_letter(number: int) -> int:
    return number


@task(queue="reports")
def make_report(number: int) -> int:
    time.sleep(2)
    return number
