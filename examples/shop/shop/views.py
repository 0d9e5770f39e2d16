from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from pgq.models import QueuedTask, Schedule
from shop.models import DailySales, Order
from shop.orders import Declined, place


class OrderForm(forms.Form):
    customer = forms.EmailField(initial="ada@example.com")
    total = forms.DecimalField(min_value=1, max_digits=8, decimal_places=2, initial=25)
    declined = forms.BooleanField(required=False, label="Card declined")


def index(request: HttpRequest) -> HttpResponse:
    form = OrderForm(request.POST or None)
    if form.is_valid():
        try:
            place(**form.cleaned_data)
        except Declined as error:
            form.add_error("declined", str(error))
        else:
            return redirect("index")
    return render(
        request,
        "shop.html",
        {
            "form": form,
            "orders": Order.objects.order_by("-pk")[:10],
            "sales": DailySales.objects.order_by("-day").first(),
            "waiting": QueuedTask.objects.count(),
            "schedules": Schedule.objects.order_by("name"),
        },
    )
