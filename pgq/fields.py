"""Model fields for ids and for what `pgq.codec` stores."""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import models
from django.db.models.query_utils import DeferredAttribute
from psycopg.types.json import Jsonb

from pgq import codec, ids
from pgq.stored import StoredText

if TYPE_CHECKING:
    _UUIDField = models.UUIDField[Any, Any]
    _TextField = models.TextField[Any, Any]
else:
    _UUIDField, _TextField = models.UUIDField, models.TextField


class TaskIdField(_UUIDField):
    """A uuid that Python sees as Django-Q's id: 32 hex digits."""

    def from_db_value(self, value: UUID | None, *_: Any) -> str | None:
        return None if value is None else value.hex

    def to_python(self, value: Any) -> Any:
        value = super().to_python(value)
        return value.hex if isinstance(value, UUID) else value

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return super().get_db_prep_value(UUID(value) if isinstance(value, str) else value, connection, prepared)

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "pgq.fields.TaskIdField", args, kwargs


#: While set, stored fields are copied from one instance to another, and nobody looks at them.
_as_text: ContextVar[bool] = ContextVar("pgq_as_text", default=False)


class KeepsText(models.Model):
    """Base of models with stored fields: reading a row again gives its texts again, which its signature is over."""

    class Meta:
        abstract = True

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        token = _as_text.set(True)
        try:
            super().refresh_from_db(*args, **kwargs)
        finally:
            _as_text.reset(token)


class _Lazy(DeferredAttribute):
    """Decodes at the first look, so that a list of rows costs nothing and one bad row spoils no page.

    The text stays in the instance, since a signature is over the text.
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


class _Name(DeferredAttribute):
    """A task without a name is called by the four words of its id."""

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        value = super().__get__(instance, cls)
        if value is not None or instance is None:
            return value
        # Not yet, while the database is to make the id.
        id = ids.parse_id(instance.id)
        return None if id is None else ids.task_name(id)

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.field.attname] = value


class NameField(_TextField):
    """The name of a task: NULL in the table if nobody gave one, and four words of the id to whoever reads it."""

    descriptor_class = _Name

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        return model_instance.__dict__.get(self.attname)

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.TextField", args, kwargs


class StoredField(models.JSONField):
    """A jsonb column in the form of `pgq.codec`, decoded when it is first looked at.

    The model decides how far to trust it: it has a method ``decode_stored(attribute, text)``.
    """

    descriptor_class = _Lazy

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
        """Save the text as it was read: what a look at it shows may be a description only."""
        values = model_instance.__dict__
        return values[self.attname] if self.attname in values else getattr(model_instance, self.attname)

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        return self.get_db_prep_value(value, connection)

    def get_prep_value(self, value: Any) -> Any:
        return value

    def validate(self, value: Any, model_instance: Any) -> None:
        """What cannot be stored is refused when it is stored."""

    def value_to_string(self, obj: Any) -> Any:
        value = obj.__dict__.get(self.attname)
        return str(value) if isinstance(value, StoredText) else codec.encode(_plain(self.value_from_object(obj)))

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "pgq.fields.StoredField", args, kwargs


def _plain(value: Any) -> Any:
    """The args column is an array, however the caller wrote it."""
    return list(value) if isinstance(value, tuple) else value
