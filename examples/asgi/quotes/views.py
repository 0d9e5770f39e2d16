import asyncio
import time
import uuid

from django import forms
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse

from pgq.errors import NotFinished
from pgq.tasks import TaskId, afetch
from quotes.tasks import ask

CARRIERS = ["Fast Feet", "Slow Boat", "Lost Parcels"]


class Parcel(forms.Form):
    weight = forms.IntegerField(min_value=1, max_value=1000, label="Weight in kg")


async def index(request: HttpRequest) -> HttpResponse:
    form, begin = Parcel(request.GET or None), time.monotonic()
    prices = await ask_all(form.cleaned_data["weight"]) if form.is_valid() else {}
    return render(request, "quotes.html", {"form": form, "prices": prices, "seconds": time.monotonic() - begin})


async def quotes(request: HttpRequest, weight: int) -> JsonResponse:
    return JsonResponse(await ask_all(weight))


async def ask_all(weight: int) -> dict[str, str]:
    """Ask all carriers, and answer when all have: the request waits, and neither a thread nor a connection does."""
    ids = await ask.aenqueue_many((carrier, weight) for carrier in CARRIERS)
    return dict(zip(CARRIERS, await asyncio.gather(*map(price, ids)), strict=True))


async def price(task_id: TaskId) -> str:
    try:
        return f"{await task_id.aresult(wait=5_000, raise_error=True)} EUR"
    except ConnectionError as error:  # What the task raised is raised here.
        return f"no price: {error}"
    except NotFinished:
        return "no price in time"


async def later(request: HttpRequest, weight: int) -> JsonResponse:
    task_id = await ask.aenqueue("Slow Boat", weight)
    return JsonResponse({"look": reverse("state", args=[uuid.UUID(task_id)])}, status=202)


async def state(request: HttpRequest, task_id: uuid.UUID) -> JsonResponse:
    """Answer as soon as the task is over, and after ten seconds in any case."""
    task = await afetch(task_id, wait=10_000)
    if task is None:
        return JsonResponse({"state": "not finished"}, status=202)
    return JsonResponse({"success": task.success, "result": task.result if task.success else task.message})
