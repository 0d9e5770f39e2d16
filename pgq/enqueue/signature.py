"""Whether a call fits its function. It is asked when the call is enqueued: a wrong one fails where it is written.

What counts is what Python enforces when it calls the very object that a worker calls. What a wrapper shows of the
function below it (``__wrapped__``, ``__signature__``) does not count: a wrapper may add and remove arguments, and a
right call must never be refused. What cannot be inspected takes any call.

A call that fits is known again by its shape, the number of its positional and the names of its keyword arguments. So
each function is bound once for each shape, and all calls that follow cost one look at a set.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import types
from collections.abc import Collection, Iterable, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any

from pgq.enqueue import registry
from pgq.errors import WrongCall

#: The number of positional arguments; or that number and the names of the keyword arguments.
Shape = int | tuple[Any, ...]
#: Shapes that are remembered of each function. One of ``**kwargs`` may be called in any number of ways.
_SHAPES = 1000

#: What a function gets before the arguments of its caller, in words for messages.
CONTEXT, FINISHED, RESULT_BEFORE = "its context", "the finished task", "the result of the link before"


def check_call(
    path: str,
    count: int,
    names: Iterable[str] = (),
    first: tuple[str, ...] = (),
    func: registry.Function | None = None,
) -> None:
    """Raise unless the function of a path can be called like that.

    Args:
        path: A path that leads to a function, followed already.
        count: Number of positional arguments.
        names: Names of keyword arguments.
        first: What the function gets before these arguments, besides its context; in words.
        func: What the path leads to, unless it is registered; None: it is looked up.

    Raises:
        WrongCall: It cannot; the message says what is missing or unexpected. Its field is args or kwargs.
    """
    shape: Shape = (count, *names) if names else count
    entry = registry.registered(path)
    if entry is None:
        _check(func or registry.locate(path), path, shape, first)
        return
    if not first and shape in entry.taken:
        return
    _check(entry.func, path, shape, (CONTEXT, *first) if entry.options.takes_context else first)
    if not first and len(entry.taken) < _SHAPES:
        entry.taken.add(shape)


def _check(func: registry.Function, path: str, shape: Shape, first: tuple[str, ...]) -> None:
    if first:
        shape = shape + len(first) if isinstance(shape, int) else (shape[0] + len(first), *shape[1:])
    try:
        callee = _callee(func)
    except TypeError:  # it cannot be hashed
        callee = _callee.__wrapped__(func)
    if shape not in callee.accepted:
        callee.bind(path, shape, first)
        if len(callee.accepted) < _SHAPES:
            callee.accepted.add(shape)


def check_calls(path: str, calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]]) -> None:
    """Raise unless the function of a path can be called with each of these arguments and keyword arguments.

    Raises:
        WrongCall: As `check_call`.
    """
    shapes: set[Shape] = {(len(args), *kwargs) if kwargs else len(args) for args, kwargs in calls}
    for shape in shapes:
        if isinstance(shape, int):
            check_call(path, shape)
        else:
            check_call(path, shape[0], shape[1:])


def check_one(argument: str, path: str, what: str) -> None:
    """Raise unless the function of a path can be called with one thing, as a hook is.

    Args:
        argument: The caller's name for the function.
        what: What it is called with, in words.

    Raises:
        WrongCall: It cannot; the field is `argument`.
    """
    try:
        check_call(path, 0, first=(what,))
    except WrongCall as error:
        raise error.of(argument) from None


class _Any:
    """Holds every shape: of a function that cannot be inspected."""

    def __contains__(self, shape: object) -> bool:
        return True

    def __len__(self) -> int:
        return _SHAPES

    def add(self, shape: Shape) -> None:
        """Do nothing."""


class _Callee:
    """A function, and the shapes of calls that it was found to take."""

    __slots__ = ("accepted", "signature")

    def __init__(self, signature: Signature | None) -> None:
        self.signature = signature or Signature()
        self.accepted: set[Shape] | _Any = _Any() if signature is None else set()

    def bind(self, path: str, shape: Shape, first: tuple[str, ...]) -> None:
        """Raise WrongCall unless the signature takes such a call."""
        count, names = (shape, ()) if isinstance(shape, int) else (shape[0], shape[1:])
        try:
            self.signature.bind(*(None,) * count, **dict.fromkeys(names))
        except TypeError as error:
            field, problem = _problem(self.signature, count, names, len(first)) or ("args", str(error))
            called = f"is called with {' and '.join(first)} first, and " if first else ""
            raise WrongCall(field, f"{path}{_shown(self.signature)} {called}{problem}") from None


@functools.lru_cache(maxsize=1000)
def _callee(func: registry.Function) -> _Callee:
    return _Callee(_signature(func))


def _signature(func: registry.Function) -> Signature | None:
    """Return what Python enforces when it calls this object; None if that cannot be found out."""
    try:
        return inspect.signature(_bare(func), follow_wrapped=False)
    except Exception:  # what an object does when it is inspected is its own affair
        return None


def _bare(func: Any) -> Any:
    """Return a callable that takes the same calls and makes no claims about itself.

    Raises:
        TypeError: There is none: its ``__signature__`` may promise less or more than it takes.
    """
    if isinstance(func, types.FunctionType):
        # `functools.wraps` copies __signature__ with all other attributes.
        bare = types.FunctionType(func.__code__, {}, func.__name__, func.__defaults__, func.__closure__)
        bare.__kwdefaults__ = func.__kwdefaults__
        return bare
    if isinstance(func, types.MethodType):
        return types.MethodType(_bare(func.__func__), func.__self__)
    if isinstance(func, functools.partial):
        return functools.partial(_bare(func.func), *func.args, **func.keywords)
    if isinstance(func, type):
        return _bare_of_class(func)
    call = getattr(type(func), "__call__", None)  # noqa: B004  # of its class, as Python looks it up
    if isinstance(call, types.FunctionType):
        return types.MethodType(_bare(call), func)
    if getattr(func, "__signature__", None) is not None:
        raise TypeError("its signature may not be its own")
    return func


def _bare_of_class(kind: Any) -> Any:
    """Return a callable that takes the calls that make an instance.

    Raises:
        TypeError: More than one function has a say in it, or one that is written in C.
    """
    made, filled = kind.__new__, kind.__init__
    if type(kind).__call__ is type.__call__:
        if made is object.__new__ and isinstance(filled, types.FunctionType):
            return types.MethodType(_bare(filled), kind)
        if filled is object.__init__ and isinstance(made, types.FunctionType):
            return types.MethodType(_bare(made), kind)
    raise TypeError("no single function says what it takes")


def _problem(signature: Signature, count: int, names: Collection[str], first: int) -> tuple[str, str] | None:
    """Return what is wrong with a call: the field, and the message's end; None: nothing that is known here.

    Args:
        count: Positional arguments.
        first: How many of them the caller has not given.
    """
    parameters = signature.parameters.values()
    kinds = {parameter.kind for parameter in parameters}
    placed = [p for p in parameters if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)]
    named = [p.name for p in parameters if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)]
    if count > len(placed) and Parameter.VAR_POSITIONAL not in kinds:
        takes = max(len(placed) - first, 0)
        more = f" {takes} positional argument{'' if takes == 1 else 's'}" if takes else " no positional argument"
        if first > len(placed):
            return "args", "takes none" if not placed else f"takes only {len(placed)}"
        return "args", f"takes{more}{' at most' if takes else ''}{' besides' if first else ''}, got {count - first}"
    filled = {parameter.name for parameter in placed[:count]}
    twice = [name for name in names if name in filled and name in named]
    if twice:
        return "kwargs", f"is given {_listed(twice)} twice, by place and by name"
    unknown = [] if Parameter.VAR_KEYWORD in kinds else [name for name in names if name not in named]
    if unknown:
        near = difflib.get_close_matches(unknown[0], named, n=1, cutoff=0.5)
        return "kwargs", f"has no argument {_listed(unknown)}{f'; did you mean {near[0]}?' if near else ''}"
    variable = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    missing = [
        parameter
        for parameter in parameters
        if parameter.default is Parameter.empty
        and parameter.kind not in variable
        and parameter.name not in filled
        and (parameter.kind is Parameter.POSITIONAL_ONLY or parameter.name not in names)
    ]
    if missing:
        by_name = all(parameter.kind is Parameter.KEYWORD_ONLY for parameter in missing)
        needs = _listed([parameter.name for parameter in missing])
        return ("kwargs" if by_name else "args"), f"needs {needs}, which {'is' if len(missing) == 1 else 'are'} missing"
    return None


def _listed(names: Sequence[str]) -> str:
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return listed if len(listed) <= 200 else f"{listed[:200]}..."


class _Default:
    """Stands for a default in messages: its repr may be long, secret, or raise."""

    def __repr__(self) -> str:
        return "..."


def _shown(signature: Signature) -> str:
    shown = [
        parameter.replace(
            annotation=Parameter.empty,
            default=parameter.default if parameter.default is Parameter.empty else _Default(),
        )
        for parameter in signature.parameters.values()
    ]
    text = str(Signature(shown))
    return text if len(text) <= 300 else f"{text[:300]}...)"
