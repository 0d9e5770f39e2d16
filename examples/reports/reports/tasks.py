import time

from pgq.tasks import Context, task
from reports.models import Report


@task(takes_context=True, queue="reports", timeout=600)
def build(context: Context, report_id: int) -> None:
    """Write a report, and say how far it is. That costs no statement: the worker writes the last word once a second."""
    report = Report.objects.get(pk=report_id)
    lines = ["row,square"]
    for row in range(1, report.rows + 1):
        lines.append(f"{row},{row * row}")
        time.sleep(0.05)  # What takes so long.
        context.progress(row, report.rows, f"row {row} of {report.rows}")
    report.text = "\n".join(lines) + "\n"
    report.save(update_fields=["text"])
