"""Django-Q's words for options, translated to those of `pgq.records.options`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pgq.conf import get_settings
from pgq.errors import EnqueueError
from pgq.records.options import CALL_OPTIONS, NO_OPTIONS, TaskOptions, unknown_option

#: Django-Q's words for options that have another name here; the last one is of its schedules.
_OTHER_WORDS = {"task_name": "name", "cluster": "queue", "broker_name": "queue"}
#: Django-Q's own business, and a word that is kept free.
_NOT_YET = {
    "unique_key": "is made of the arguments: give unique",
    "iter_count": "is Django-Q's own business; use async_iter",
    "iter_cached": "is Django-Q's own business; use async_iter with cached",
    "chain": "is Django-Q's own business; use async_chain",
}
#: Words that are options in q_options only: among the keyword arguments of a call they are the function's.
_IN_Q_OPTIONS = frozenset({"keep", "backoff", "key", "unique", "debounce", "expires"})
#: Keyword arguments of a call that are options, not the function's (which may have one called name).
WORDS = frozenset({*CALL_OPTIONS, "task_name", "cluster", "broker", "sync"}) - {"name"} - _IN_Q_OPTIONS
#: The words of many calls: none of their keyword arguments is the function's.
_WORDS_OF_MANY = WORDS | _IN_Q_OPTIONS
#: Those of a schedule, which has some of them as parameters of its own.
WORDS_OF_SCHEDULE = WORDS - {"priority", "run_after"} | {"broker_name"}


def words_of(
    kwargs: Mapping[str, Any], q_options: Any, known: Collection[str], refused: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split keyword arguments into the function's, and the words that are options.

    As in Django-Q, what stands in q_options wins, and leaves a keyword of the same name to the function.
    """
    given, q_options = dict(kwargs), q_options or {}
    if not isinstance(q_options, Mapping):
        raise EnqueueError("q_options", f"must be a dict, got {q_options!r}")
    for word in q_options:
        if word not in known and word not in refused and word not in _IN_Q_OPTIONS:
            raise unknown_option(word, known, of="q_options")
    own = [word for word in given if (word in known or word in refused) and word not in q_options]
    return given, {**q_options, **{word: given.pop(word) for word in own}}


def options_of(words: Mapping[str, Any]) -> TaskOptions:
    """Return the options that Django-Q's words, or pgq's, name."""
    options = {word: value for word, value in words.items() if word in CALL_OPTIONS or word in _IN_Q_OPTIONS}
    for word, name in _OTHER_WORDS.items():
        if word in words:
            options[name] = options.get(name) or words[word]
    return TaskOptions.of(**options)


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], TaskOptions, bool]:
    """Do as `split_call` where no keyword argument is the function's; what is left is no option."""
    return split_call(options, _WORDS_OF_MANY)


def split_call(kwargs: Mapping[str, Any], known: Collection[str] = WORDS) -> tuple[dict[str, Any], TaskOptions, bool]:
    """Split keyword arguments of a call into the function's, the options, and whether to run at once.

    Args:
        known: The keyword arguments that are options.
    """
    if not kwargs:
        return {}, NO_OPTIONS, get_settings().sync
    given = dict(kwargs)
    given, words = words_of(given, given.pop("q_options", None), known, _NOT_YET)
    for word, why in _NOT_YET.items():
        if words.get(word) is not None:
            raise EnqueueError(word, why)
    sync = words.get("sync")
    return given, options_of(words), get_settings().sync if sync is None else bool(sync)
