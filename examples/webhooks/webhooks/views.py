import json
import uuid

from django.db import transaction
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from pgq.models import Failure, QueuedTask, Success
from pgq.tasks import retry
from webhooks.models import Receipt, Switch
from webhooks.tasks import deliver

SUBSCRIBERS = ["steady", "flaky", "down", "gone"]


def index(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        event = f"order-{uuid.uuid4().hex[:8]}"
        deliver.enqueue_many((subscriber, event, {"total": 25}) for subscriber in SUBSCRIBERS)
        return redirect("index")
    return render(
        request,
        "webhooks.html",
        {
            "waiting": QueuedTask.objects.order_by("enqueued_at"),
            "dead": Failure.objects.filter(func=deliver.path).order_by("-stopped"),
            "delivered": Success.objects.filter(func=deliver.path).order_by("-stopped")[:10],
            "mended": Switch.objects.filter(mended=True).exists(),
        },
    )


@require_POST
def again(request: HttpRequest, task_id: str) -> HttpResponse:
    """Deliver once more what has failed for good: the same task, under its id, with all its attempts anew."""
    retry(get_object_or_404(Failure, pk=task_id, func=deliver.path).id)
    return redirect("index")


@require_POST
def mend(request: HttpRequest) -> HttpResponse:
    Switch.objects.create(mended=True)
    return redirect("index")


@csrf_exempt
@require_POST
@transaction.atomic
def receiver(request: HttpRequest, subscriber: str) -> HttpResponse:
    """A subscriber: "flaky" answers at the third call, "down" once it is mended, "gone" has left for good."""
    event = json.loads(request.body)["event"]
    receipt, _ = Receipt.objects.get_or_create(subscriber=subscriber, event=event)
    Receipt.objects.filter(pk=receipt.pk).update(calls=F("calls") + 1)
    if subscriber == "gone":
        return HttpResponse(status=410)
    if subscriber == "down" and not Switch.objects.filter(mended=True).exists():
        return HttpResponse(status=500)
    if subscriber == "flaky" and receipt.calls < 2:
        return HttpResponse(status=503)
    return HttpResponse(status=200)
