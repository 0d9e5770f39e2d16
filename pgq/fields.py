"""Model fields for ids and for what `pgq.codec` stores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django import forms
from django.db import models
from django.db.models.fields.json import JSONExact
from django.db.models.lookups import In
from django.db.models.query_utils import DeferredAttribute
from psycopg.types.json import Jsonb

from pgq import codec
from pgq.codec import failures, literals
from pgq.codec.stored import StoredText, stored_text
from pgq.errors import PgqError, invalid
from pgq.ground import ids

if TYPE_CHECKING:
    _UUIDField = models.UUIDField[Any, Any]
    _TextField = models.TextField[Any, Any]
    _BooleanField = models.BooleanField[Any, Any]
    _Model = models.Model
else:
    _UUIDField, _TextField, _BooleanField, _Model = models.UUIDField, models.TextField, models.BooleanField, object


class TaskIdField(_UUIDField):
    """A uuid that Python sees as Django-Q's id: 32 hex digits."""

    def from_db_value(self, value: UUID | None, *_: Any) -> str | None:
        return None if value is None else value.hex

    def to_python(self, value: Any) -> Any:
        value = super().to_python(value)
        return value.hex if isinstance(value, UUID) else value

    def get_pk_value_on_save(self, instance: Any) -> str:
        """Return the id of a new row that has none. No default, with which Django would not look for the row first."""
        return ids.new_id().hex

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return super().get_db_prep_value(UUID(value) if isinstance(value, str) else value, connection, prepared)

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "pgq.fields.TaskIdField", args, kwargs


#: While set, Django copies stored fields from one instance to another: they stay text and are not decoded.
_as_text: ContextVar[bool] = ContextVar("pgq_as_text", default=False)


class KeepsText(_Model):
    """Part of models with stored fields: refresh_from_db keeps the texts, which the row's signature covers.

    No abstract model, so that migrations name it as a base, and the models of a data migration are such models, too.
    """

    def decode_stored(self, attribute: str, text: str) -> Any:
        """Decode a stored value, as a description that imports, loads and unpickles nothing."""
        args, kwargs = stored_text(self, "args"), stored_text(self, "kwargs")
        if attribute not in ("args", "kwargs") or args is None or kwargs is None:
            value = codec.decode_for_display(text)
        else:
            # Together, since compressed they stand in one.
            value = codec.decode_args_for_display(args, kwargs)[attribute == "kwargs"]
        return tuple(value) if attribute == "args" and isinstance(value, list) else value

    def read_given(self) -> None:
        """Read what was assigned to stored fields, text in particular.

        Raises:
            ValueError: A field cannot hold its value; the message begins with its name.
        """
        for field in self._meta.concrete_fields:
            if isinstance(field, StoredField) and field.attname in self.__dict__:
                field.pre_save(self, add=False)

    def save(self, *args: Any, **kwargs: Any) -> None:
        # Before the statement: an error while it is made would cost the caller's transaction.
        self.read_given()
        super().save(*args, **kwargs)

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        token = _as_text.set(True)
        try:
            super().refresh_from_db(*args, **kwargs)
        finally:
            _as_text.reset(token)


class _Lazy(DeferredAttribute):
    """Decodes when the value is first read, so that a list of rows costs nothing and one bad row spoils no page.

    The text stays in the instance, since the signature covers the text.
    """

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        value = super().__get__(instance, cls)
        if not isinstance(value, StoredText) or _as_text.get():
            return value
        decoded = instance.__dict__.setdefault("_decoded", {})
        name = self.field.attname
        if name not in decoded:
            decoded[name] = instance.decode_stored(name, str(value))
        return decoded[name]

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.field.attname] = value
        instance.__dict__.get("_decoded", {}).pop(self.field.attname, None)


class _Words(str):
    """A name made from an id; it is not stored."""

    __slots__ = ()


class _Name(DeferredAttribute):
    """A task without a name is called by the four words of its id."""

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        value = super().__get__(instance, cls)
        if value is not None or instance is None:
            return value
        # There is no id yet if the database is to make it.
        id = ids.parse_id(instance.id)
        return None if id is None else _Words(ids.task_name(id))

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.field.attname] = value


class OptionalTextField(_TextField):
    """A text that may be NULL: an empty one is none, however it is written and in lookups."""

    def get_prep_value(self, value: Any) -> Any:
        return super().get_prep_value(value) or None

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        if model_instance.__dict__.get(self.attname) == "":
            setattr(model_instance, self.attname, None)
        return super().pre_save(model_instance, add)


class NameField(OptionalTextField):
    """The name of a task: NULL in the table if none was given; then Python reads the four words of the id."""

    descriptor_class = _Name

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        return model_instance.__dict__.get(self.attname)

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        # A fixture is saved without pre_save.
        return super().get_db_prep_save(None if isinstance(value, _Words) else value, connection)

    def value_from_object(self, obj: Any) -> Any:
        """Return the name as it is stored: a copy of the row, such as a fixture, has no other name than the row."""
        return obj.__dict__.get(self.attname)

    def value_to_string(self, obj: Any) -> str:
        return self.value_from_object(obj) or ""


class OutcomeField(_BooleanField):
    """Whether a task succeeded; a new row without a value gets that of its class (`Failure`: False)."""

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        if getattr(model_instance, self.attname) is None:
            setattr(model_instance, self.attname, getattr(model_instance, "succeeds", True))
        return super().pre_save(model_instance, add)


class ExceptionField(_TextField):
    """The path of the exception that a task failed with; each failure has one."""

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        # OutcomeField.pre_save may not have run yet.
        failed = (
            not getattr(model_instance, "succeeds", True)
            if model_instance.success is None
            else not model_instance.success
        )
        if failed and getattr(model_instance, self.attname) is None:
            setattr(model_instance, self.attname, failures.path_of(Exception))
        return super().pre_save(model_instance, add)


#: Begins the text by which a fixture holds a value with tags. No Python literal begins so, hence it is unambiguous.
_AS_STORED = "stored:"


class StoredField(models.JSONField):
    """A jsonb column in the form of `pgq.codec`, decoded when it is first read.

    The model decides how far to trust the text, in its method ``decode_stored(attribute, text)``.
    """

    descriptor_class = _Lazy

    def normal(self, value: Any) -> Any:
        """Return the value meant by one that was assigned or is searched for; all ways of writing call this.

        Raises:
            ValueError: The column cannot hold it; the message names the field.
        """
        if isinstance(value, str) and not isinstance(value, StoredText) and value.startswith(_AS_STORED):
            try:
                return StoredText(codec.canonical(json.loads(value.removeprefix(_AS_STORED))))
            except (ValueError, KeyError, RecursionError):
                raise invalid(self.name, f"{value[:100]!r} is no stored value as dumpdata writes it") from None
        return value

    def encoded(self, value: Any) -> str:
        """Return the text that is stored for a value."""
        value = self.normal(value)
        return str(value) if isinstance(value, StoredText) else codec.encode(_plain(value), where=self.name)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        if value is None:
            return None
        text = value if isinstance(value, str) else json.dumps(value)
        return StoredText(text) if expression.__class__.__name__ == "Col" else json.loads(text)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if value is None or hasattr(value, "as_sql"):
            return value
        text = value if isinstance(value, StoredText) else codec.encode(_plain(value), where=self.name)
        return Jsonb(None, dumps=lambda _: str(text))

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Save the text as it was read: the decoded value may be a description only."""
        values = model_instance.__dict__
        if self.attname not in values:
            return getattr(model_instance, self.attname)
        value = self.normal(values[self.attname])
        if value is not values[self.attname]:
            setattr(model_instance, self.attname, value)
        return value

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        return self.get_db_prep_value(self.normal(value), connection)

    def get_prep_value(self, value: Any) -> Any:
        return value

    def validate(self, value: Any, model_instance: Any) -> None:
        """What cannot be stored is refused when it is stored."""

    def value_from_object(self, obj: Any) -> Any:
        try:
            return super().value_from_object(obj)
        except PgqError:
            # What the text names is gone. Django can copy the row all the same.
            return obj.__dict__[self.attname]

    def value_to_string(self, obj: Any) -> Any:
        """Return what a fixture holds: plain JSON, or marked text if there are tags in it."""
        value = obj.__dict__.get(self.attname)
        if value is None and self.null:
            return None
        text = self.encoded(value)
        return _AS_STORED + text if '"$' in text else json.loads(text)

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, f"pgq.fields.{type(self).__name__}", args, kwargs


class _LiteralsField(StoredField):
    """A stored value that may be given as Python literals, as in a form."""

    def formfield(self, **kwargs: Any) -> Any:
        # Not JSONField's, which takes JSON. The text is read when the row is checked or saved.
        given: Any = {"form_class": forms.CharField, "widget": forms.Textarea, **kwargs}
        return models.Field.formfield(self, **given)


class ArgsField(_LiteralsField):
    """Positional arguments. As in Django-Q, text holds Python literals, and what is no sequence is one argument."""

    def normal(self, value: Any) -> Any:
        value = super().normal(value)
        if isinstance(value, StoredText | tuple | list) or hasattr(value, "resolve_expression"):
            return value
        if value is None or (isinstance(value, str) and not value.strip()):
            return ()
        return literals.read_args(value, self.name or "args") if isinstance(value, str) else (value,)


class KwargsField(_LiteralsField):
    """Keyword arguments, or options. As in Django-Q, text holds Python literals: a dict, or ``x=1``."""

    def normal(self, value: Any) -> Any:
        value = super().normal(value)
        if isinstance(value, StoredText | Mapping) or hasattr(value, "resolve_expression"):
            return value
        if value is None or (isinstance(value, str) and not value.strip()):
            return {}
        if not isinstance(value, str):
            raise invalid(self.name, f"must be a dict, or text such as: x=1, y='two'; got {value!r}")
        return literals.read_kwargs(value, self.name or "kwargs")


@StoredField.register_lookup
class _StoredExact(JSONExact):
    """Finds a value in any way of writing it: ``args="1, 2"`` finds what was saved by it."""

    def get_prep_lookup(self) -> Any:
        if self.rhs_is_direct_value():
            self.rhs = self.lhs.output_field.normal(self.rhs)
        return super().get_prep_lookup()


@StoredField.register_lookup
class _StoredIn(In):
    def get_prep_lookup(self) -> Any:
        if self.rhs_is_direct_value():
            self.rhs = [self.lhs.output_field.normal(value) for value in self.rhs]
        return super().get_prep_lookup()


def _plain(value: Any) -> Any:
    """Return a tuple as a list: the args column is a plain array."""
    return list(value) if isinstance(value, tuple) else value
