from typing import Any

from django import forms
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from pgq.models import Progress
from pgq.tasks import cancel, fetch
from reports.models import Report
from reports.tasks import build


class ReportForm(forms.Form):
    rows = forms.IntegerField(min_value=1, max_value=10_000, initial=200)


def index(request: HttpRequest) -> HttpResponse:
    form = ReportForm(request.POST or None)
    if form.is_valid():
        with transaction.atomic():  # A report has a task, or there is no report.
            report = Report.objects.create(rows=form.cleaned_data["rows"])
            report.task_id = build.enqueue(report.pk)
            report.save(update_fields=["task_id"])
        return redirect("index")
    reports = [look(report) for report in Report.objects.order_by("-pk")[:10]]
    return render(request, "reports.html", {"form": form, "reports": reports})


@require_GET
def state(request: HttpRequest, pk: int) -> HttpResponse:
    """The part of the page that is about one report; the page asks for it once a second while the task is not over."""
    return render(request, "report.html", {"report": look(get_object_or_404(Report, pk=pk))})


@require_POST
def stop(request: HttpRequest, pk: int) -> HttpResponse:
    cancel(get_object_or_404(Report, pk=pk).task_id)
    return redirect("index")


@require_GET
def download(request: HttpRequest, pk: int) -> HttpResponse:
    report = get_object_or_404(Report.objects.exclude(text=""), pk=pk)
    return HttpResponse(report.text, content_type="text/csv")


def look(report: Report) -> dict[str, Any]:
    """What the page shows of a report."""
    task = fetch(report.task_id)
    progress = None if task else Progress.of(report.task_id)
    if task:
        text = "ready" if task.success else task.message or "failed"
    else:
        text = progress.text if progress else "waiting for a worker"
    return {"pk": report.pk, "over": task is not None, "ready": bool(report.text), "text": text, "progress": progress}
