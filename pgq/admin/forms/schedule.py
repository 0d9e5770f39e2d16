"""The form of a schedule: what it may be changed to, and whether it stays signed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _

from pgq import codec
from pgq.admin import databases
from pgq.admin.forms.call import CallForm
from pgq.admin.forms.fields import STORED, add_named_error, read_field
from pgq.codec.stored import StoredText
from pgq.enqueue import registry
from pgq.errors import EnqueueError, PgqError
from pgq.records.options import OF_SCHEDULE
from pgq.schedules import commands
from pgq.schedules.define import check_calls_of


class ScheduleForm(CallForm):
    """A schedule. What Python signed stays signed as long as nothing changes of what it enqueues."""

    def is_valid(self) -> bool:
        # A preview shows the page again, with what it would be; nothing is saved.
        return super().is_valid() and "_preview" not in self.data

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        after = dict(self.stored)
        command = self._chosen_command(cleaned)
        for form_name, name in STORED.items():
            if self.fields[form_name].disabled:
                continue
            value = read_field(self, form_name, name)
            if form_name in self.errors:
                continue
            if command and name == "args":
                value = (command, *value)
            try:
                after[name] = self.encode(name, value)
            except EnqueueError as error:
                add_named_error(self, error)
                continue
            if after[name] != self.stored[name]:
                # As values: what an unsigned row holds is not read as trusted when it is saved.
                setattr(self.instance, name, value)
                self.changed_columns.add(name)
        options = self._new_options(cleaned)
        if options != self.options:
            after["options"] = codec.canonical(options)
            self.instance.options = StoredText(after["options"])
            self.changed_columns.add("options")
        if not self.errors and (self.instance._state.adding or "queue" in self.changed_data):
            databases.check_queue(cleaned["queue"])
        if not self.errors:
            self._check_call(cleaned, after)
        if not self.errors:
            self._check_signature((cleaned["func"], cleaned["hook"], cleaned["queue"], *after.values()), after)
        return cleaned

    def _chosen_command(self, cleaned: dict[str, Any]) -> str | None:
        """Return the command, whose function is then the schedule's; None: a function is chosen."""
        if "command" not in self.fields or "func" in self.errors or "command" in self.errors:
            return None
        command: str | None = cleaned.get("command") or None
        if bool(command) == bool(cleaned.get("func")):
            self.add_error("command", _("Choose a function or a command, one of them."))
            return None
        if command:
            cleaned["func"] = commands.LISTED
        return command

    def _new_options(self, cleaned: Mapping[str, Any]) -> dict[str, Any]:
        options = dict(self.options)
        for name in OF_SCHEDULE.values():
            if cleaned.get(name) is None:
                options.pop(name, None)
            elif name in self.changed_data:
                options[name] = cleaned[name]
        return options

    def _check_call(self, cleaned: Mapping[str, Any], texts: Mapping[str, str]) -> None:
        """Refuse what its function, or its hook, cannot be called with.

        Only if that is new: a schedule that was wrong before can be paused all the same. And only of functions that any
        row may name: no others are imported because a row names them.
        """
        func, hook, slot = cleaned["func"], cleaned["hook"], cleaned["intended_date_kwarg"]
        texts_before = {name: self.stored[name] for name in ("args", "kwargs")}
        changed = {"func", "hook", "intended_date_kwarg"}.intersection(self.changed_data)
        if (
            self.instance.pk is not None
            and not changed
            and texts_before == {name: texts[name] for name in texts_before}
        ):
            return
        args, kwargs = codec.decode_args_for_display(texts["args"], texts["kwargs"])
        named = [path if path is not None and registry.may_be_named(path) else None for path in (func, hook)]
        try:
            check_calls_of(named[0], len(args), kwargs, slot, named[1])
        except EnqueueError as error:
            add_named_error(self, error)

    def _check_signature(self, after: tuple[Any, ...], texts: Mapping[str, str]) -> None:
        """Refuse what could not run any more once the signature does not fit."""
        if self.is_signed and after == self.before:
            return
        if self.instance.signature is not None:
            self.changed_columns.add("signature")
            self.instance.signature = None
        why = (
            _("The schedule was made in code and signed. Changing what it enqueues takes the signature away, and then")
            if self.is_signed
            else _("The schedule is not signed, so")
        )
        for name, path in (("func", after[0]), ("hook", after[1])):
            is_command = name == "func" and path == commands.LISTED and "command" in self.fields
            if path is not None and path not in self.functions and not is_command:
                self.add_error(name, _("%s it may only name a function registered with @task.") % why)
        try:
            codec.decode_args(texts["args"], texts["kwargs"], trusted=False)
        except PgqError as error:
            self.add_error(None, _("%(why)s its arguments could not be read: %(error)s") % {"why": why, "error": error})

    def columns(self) -> list[str]:
        """Return the columns to write: the rest may have been changed by a tick since the form was opened."""
        changed = self.changed_columns | (set(self.changed_data) & set(CallForm.Meta.fields))
        if self.instance.next_run != self.stored_next_run:
            changed.add("next_run")
        if self.has_new_timing() or "next_run" in changed:
            changed |= {"day", "wall_time"}
        if changed:
            self.instance.error = None
            changed.add("error")
        return sorted(changed)
