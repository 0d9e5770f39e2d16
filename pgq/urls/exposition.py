"""The text that Prometheus reads: format 0.0.4, or OpenMetrics 1.0 for those that accept it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

#: A line of a family: what follows its name, labels, value.
Sample = tuple[str, Mapping[str, str], float]


@dataclass(slots=True)
class Family:
    """A metric with all its samples. A counter's name has no ``_total``: its samples have."""

    name: str
    kind: str
    help: str
    samples: list[Sample] = field(default_factory=list)

    def add(self, value: float | None, /, **labels: str) -> None:
        """Add a sample; None: there is none."""
        if value is not None:
            self.samples.append(("_total" if self.kind == COUNTER else "", labels, value))

    def add_histogram(self, bounds: Iterable[tuple[float, int]], number: int, total: float, /, **labels: str) -> None:
        """Add a histogram.

        Args:
            bounds: Upper bounds, growing, and how many values do not exceed each.
            number, total: Of all values.
        """
        for bound, count in bounds:
            self.samples.append(("_bucket", {**labels, "le": _number(bound)}, count))
        self.samples.append(("_bucket", {**labels, "le": "+Inf"}, number))
        self.samples.append(("_sum", labels, total))
        self.samples.append(("_count", labels, number))


def wants_open(accept: str) -> bool:
    """Return whether a header Accept prefers OpenMetrics, as Prometheus's does."""
    best = {"text": 0.0, "open": 0.0}
    for each in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in each.split(";"))
        weights = [part[2:] for part in parameters if part.startswith("q=")]
        weight = float(weights[0]) if weights and re.fullmatch(r"[01](\.\d{0,3})?", weights[0], re.ASCII) else 1.0
        name = "open" if kind == "application/openmetrics-text" else "text"
        best[name] = max(best[name], weight)
    return best["open"] > 0 and best["open"] >= best["text"]


def render(families: Iterable[Family], *, is_open: bool) -> str:
    """Return the text of all families that have samples."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        name = family.name + ("_total" if family.kind == COUNTER and not is_open else "")
        lines.append(f"# HELP {name} {_escaped(family.help, quotes=is_open)}")
        lines.append(f"# TYPE {name} {family.kind}")
        lines += [
            f"{family.name}{suffix}{_labels(labels)} {_number(value)}" for suffix, labels, value in family.samples
        ]
    if is_open:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value, quotes=True)}"' for name, value in labels.items()) + "}"


def _escaped(text: str, *, quotes: bool) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    if type(value) is float:
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "+Inf" if value > 0 else "-Inf"
        return repr(value)
    return str(value)
