"""How a function or a class is called, as a block of Python."""

from __future__ import annotations

import inspect
from typing import Any

_WIDTH = 100
#: A default that is longer says nothing.
_LONGEST_DEFAULT = 40


def signature(name: str, value: Any, *, drop_self: bool = False) -> str:
    """Return the block; nothing if Python does not know. `drop_self`: of a method that is called by an instance."""
    try:
        found = inspect.signature(value)
    except ValueError:
        return ""
    parameters = list(found.parameters.values())[drop_self:]
    texts: list[str] = []
    for before, parameter in zip([None, *parameters], parameters, strict=False):
        keyword = parameter.kind is parameter.KEYWORD_ONLY
        if keyword and (before is None or before.kind not in (before.KEYWORD_ONLY, before.VAR_POSITIONAL)):
            texts.append("*")
        texts.append(_parameter(parameter))
        if parameter.kind is parameter.POSITIONAL_ONLY:
            following = parameters[parameters.index(parameter) + 1 :]
            if not following or following[0].kind is not parameter.POSITIONAL_ONLY:
                texts.append("/")
    returns = found.return_annotation
    shown = not inspect.isclass(value) and returns is not found.empty
    returned = f" -> {_annotation(returns)}" if shown else ""
    line = f"{name}({', '.join(texts)}){returned}"
    if len(line) > _WIDTH:
        line = f"{name}(\n" + "".join(f"    {text},\n" for text in texts) + f"){returned}"
    prefix = "async " if inspect.iscoroutinefunction(value) else ""
    return f"```python\n{prefix}{line}\n```\n"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = f"{stars}{parameter.name}"
    typed = parameter.annotation is not parameter.empty
    if typed:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        default = repr(parameter.default)
        # An address differs from run to run.
        long = " at 0x" in default or default.startswith("<") or len(default) > _LONGEST_DEFAULT
        default = "..." if long else default
        text += f" = {default}" if typed else f"={default}"
    return text


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
