"""The functions registered with @task, and the way from a dotted path to a function."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pgq.codec import dotted
from pgq.conf import get_settings
from pgq.errors import EnqueueError, NotAllowed, UnknownFunction
from pgq.records.options import TaskOptions

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Registered:
    """A function registered with ``@task``."""

    path: str
    func: Function
    options: TaskOptions
    #: Shapes of calls that the function was found to take; see `pgq.enqueue.signature`.
    taken: set[Any] = field(default_factory=set, compare=False)


class Decorated:
    """What ``@task`` leaves in the place of a function (`pgq.tasks.definition` makes it)."""

    #: The function below.
    func: Function
    #: The dotted path that `register` gave it.
    path: str
    #: What `@task` says of all its calls.
    options: TaskOptions

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function here."""
        return self.func(*args, **kwargs)


_registered: dict[str, Registered] = {}
#: The paths of functions that are called with a context, or by the rules of django.tasks.
#: One lookup shows a worker that a task has neither.
special: set[str] = set()


def register(func: Function, options: TaskOptions) -> Registered:
    """Register a function under its own dotted path. A later function of that path replaces the earlier (reload).

    A module that is run as a script (``__main__``) may have tasks as well, but there they can only be called.

    Raises:
        UnknownFunction: It has no path, or is a generator function.
        EnqueueError: It is to take a context, and its first argument is another.
    """
    refuse_yield(func)
    if options.takes_context:
        _require_context(func)
    entry = Registered(_named(func, functools.partial(dotted.claimed_path, of_main=True)), func, options)
    if not dotted.is_main(entry.path):
        _registered[entry.path] = entry
        (special.add if options.takes_context else special.discard)(entry.path)
    return entry


def registered(path: str) -> Registered | None:
    """Return what is registered under that path."""
    return _registered.get(path)


def may_be_named(path: str) -> bool:
    """Return whether an unsigned row may name the function of that path. Nothing is imported."""
    return path in _registered or path in get_settings().allowed


def is_atomic(path: str) -> bool:
    """Return whether the function of that path is registered as atomic."""
    entry = _registered.get(path)
    return entry is not None and bool(entry.options.atomic)


def takes_context(path: str) -> bool:
    """Return whether the function of that path is registered as one whose first argument is the task's context."""
    entry = _registered.get(path)
    return entry is not None and bool(entry.options.takes_context)


def signature_of(func: Callable[..., Any]) -> inspect.Signature:
    """Return what a callable says it takes.

    Raises:
        TypeError, ValueError: It cannot be inspected.
    """
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        # Annotations are evaluated when they are asked for; what they name may be imported for type checkers alone.
        return inspect.signature(func, annotation_format=Format.STRING)
    return inspect.signature(func)


def _require_context(func: Function) -> None:
    """Raise unless the first argument is named `context` and can be given by position, as django.tasks wants it."""
    try:
        parameters = list(signature_of(func).parameters.values())
    except (TypeError, ValueError):
        # It cannot be inspected.
        return
    first = parameters[0] if parameters else None
    if (
        first is None
        or first.name != "context"
        or first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD)
    ):
        name, found = getattr(func, "__qualname__", func), "it has none" if first is None else f"it is {first}"
        raise EnqueueError("takes_context", f"the first argument of {name} must be named 'context'; {found}")


def all_registered() -> list[Registered]:
    """Return all registered functions, sorted by path."""
    return sorted(_registered.values(), key=lambda entry: entry.path)


def path_of(func: object) -> str:
    """Return the dotted path by which a worker gets this very callable.

    Raises:
        UnknownFunction: There is none: it is a lambda, a function inside a function, a method of an instance; or what
            stands at its path is another object, such as the function below a wrapper.
    """
    return _named(func, _leading_path)


def _leading_path(func: object) -> str:
    path = dotted.claimed_path(func)
    if not dotted.same(found(path), func):
        raise dotted.elsewhere(path)
    return path


def _named(func: object, path: Callable[[object], str]) -> str:
    if not callable(func) and not isinstance(func, classmethod | staticmethod):
        raise UnknownFunction("func", f"{func!r} is not a function or the dotted path of one")
    try:
        return path(func)
    except dotted.Unnamed as error:
        name = getattr(func, "__name__", None)
        raise UnknownFunction("func", f"{name if isinstance(name, str) else repr(func)[:200]} {error}") from None


_YIELD = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def is_async(func: Function) -> bool:
    """Return whether calling it returns a coroutine: an ``async def``, or an object with an ``async def __call__``."""
    return inspect.iscoroutinefunction(func) or (
        not inspect.isclass(func) and inspect.iscoroutinefunction(getattr(func, "__call__", None))  # noqa: B004
    )


def has_yield(func: Function) -> bool:
    """Return whether it is a generator function: to call it runs nothing of its body."""
    # As `inspect` does, in a tenth of the time: each enqueue calls this.
    code = getattr(func.func if isinstance(func, functools.partial) else func, "__code__", None)
    return code is not None and bool(code.co_flags & _YIELD)


def refuse_yield(func: Function) -> None:
    """Raise for a generator function.

    Raises:
        UnknownFunction: It is one.
    """
    if has_yield(func):
        raise UnknownFunction("func", f"{getattr(func, '__qualname__', func)} {YIELDS}")


#: What is wrong with a generator function as a task.
YIELDS = "has a yield: to call it runs nothing of its body; return a list, or consume the generator in another function"


_MISSING = object()
#: The modules that define the Task of django.tasks: Django's own, and that of the package django-tasks.
_TASK_MODULES = ("django.tasks.base", "django_tasks.base")


def is_django_task(value: object) -> bool:
    """Return whether it is a Task object of django.tasks, which cannot be called: its function is its ``func``."""
    # A module that is not imported has made none.
    return any(isinstance(value, sys.modules[name].Task) for name in _TASK_MODULES if name in sys.modules)


def locate(path: str) -> Function:
    """Import and return what a dotted path names now: ``module.function`` or ``module.Class.method``.

    Of a Task object of django.tasks, which stands in the place of its function, that function.

    Raises:
        UnknownFunction: Nothing is there, its module fails to import, or it cannot be called.
    """
    return called(path, look_up(path))


def called(path: str, found: Any) -> Function:
    """Return what is called of that which stands at a path: itself, or the function of a Task object of django.tasks.

    Raises:
        UnknownFunction: It cannot be called.
    """
    if callable(found):
        return found  # type: ignore[no-any-return]
    if is_django_task(found):
        return found.func  # type: ignore[no-any-return]
    raise UnknownFunction("func", f"{path!r} is a {type(found).__name__} and cannot be called")


def look_up(path: str) -> object:
    """Import and return what stands at a dotted path, whatever it is.

    Raises:
        UnknownFunction: Nothing is there, or its module fails to import.
    """
    owner, name = _home(path)
    # Looked up each time: what stands there may be replaced, by a reload or for the time of a test.
    found: object = getattr(owner, name, _MISSING)
    if found is _MISSING:
        raise UnknownFunction("func", f"{path!r}: {getattr(owner, '__name__', owner)} has no {name}")
    return found


@functools.lru_cache(maxsize=4096)
def _home(path: str) -> tuple[object, str]:
    """Return the module or class that a path's last name is looked up in, and that name."""
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise UnknownFunction("func", f"{path!r} is not a dotted path such as 'app.tasks.function'")
    if dotted.is_main(path):
        raise UnknownFunction("func", f"{path!r} is of __main__, which a worker cannot import; move it into a module")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            # Only if it is the module itself, or a parent, that is missing; a module may fail on an import of its own.
            if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
                continue
            raise UnknownFunction("func", f"{path!r}: importing {module} failed: {error}") from error
        except Exception as error:
            raise UnknownFunction(
                "func", f"{path!r}: importing {module} failed: {type(error).__name__}: {error}"
            ) from error
        for part in parts[length:]:
            owner = found
            try:
                found = getattr(found, part)
            except AttributeError:
                raise UnknownFunction("func", f"{path!r}: {module} has no {'.'.join(parts[length:])}") from None
        return owner, parts[-1]
    raise UnknownFunction("func", f"{path!r}: there is no module {parts[0]!r}")


def found(path: str) -> Function:
    """Return the function of a path, registered or not.

    Raises:
        UnknownFunction: See `locate`.
    """
    entry = _registered.get(path)
    if entry is None:
        func = locate(path)
        # If its module was imported only now, that has registered it.
        entry = _registered.get(path)
    return entry.func if entry is not None else func


def resolve(path: str, *, signed: bool) -> Function:
    """Return the function that a row names.

    Raises:
        NotAllowed: The row is unsigned, and the function is not registered.
        UnknownFunction: See `locate`.
    """
    if signed or path in _registered or path in get_settings().allowed:
        return found(path)
    raise NotAllowed(
        f"the row is not signed and {path[:200]!r} is neither registered with @task nor listed in PGQ['allowed']"
        f"; {_way_in(path[:200])}"
    )


def _way_in(path: str) -> str:
    """Return in words what lets an unsigned row name that function. Nothing is imported to find out."""
    parts = path.split(".")
    imported = next((name for name in _beginnings(parts) if name in sys.modules), None)
    if imported is None or hasattr(sys.modules[imported], "__path__"):
        # A package: the next part is a module that is not imported, so its content is unknown.
        module = ".".join(parts[:-1]) or path
        if imported != module:
            return (
                f"nothing has imported {module} here: if the function has @task, import that module in the module "
                "'tasks' of an installed app, or in the ready() of an AppConfig"
            )
    return "put @task on it, or list it"


def _beginnings(parts: list[str]) -> Iterator[str]:
    """Yield the paths that a dotted path begins with, without itself, the longest first."""
    for length in range(len(parts) - 1, 0, -1):
        yield ".".join(parts[:length])
