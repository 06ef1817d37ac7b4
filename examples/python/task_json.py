"""How a task travels: as JSON of its class name and its fields, {"class": "Mail", "fields": {"to": "ann"}}.

Whoever can write to the queue chooses this text, so it can only choose among classes that the program itself offers:
those defined in its __main__, and those it has registered. Nothing is imported, and no code of the class runs while a
task is built. Everything else is a TaskError.
"""

import inspect
import json
import sys

_registered = {}


class TaskError(ValueError):
    """A task that cannot travel, or a message that is no task of this program."""


def register(task_class):
    """Lets tasks of this class be built; for classes that are not defined in __main__. Can be used as decorator."""
    _registered[task_class.__name__] = task_class
    return task_class


def encode(task):
    name = type(task).__name__
    fields = getattr(task, "__dict__", None)
    if fields is None:
        raise TaskError(f"{name} has no __dict__ to travel: write a class with plain attributes")
    _check_names(type(task), fields)
    try:
        text = json.dumps({"class": name, "fields": fields}, ensure_ascii=False, allow_nan=False)
        body = text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise TaskError(f"the fields of {name} cannot be written as JSON: {error}") from None
    if json.loads(text)["fields"] != fields:
        raise TaskError(f"the fields of {name} would come back changed: use text, numbers, True, False, None, lists, "
                        "and dicts with text as keys")
    return body


def decode(body):
    """The task in a message's body. TaskError says what is wrong with it."""
    try:
        task = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"not JSON: {error}") from None
    if not isinstance(task, dict) or task.keys() != {"class", "fields"}:
        raise TaskError('not an object with exactly "class" and "fields"')
    name, fields = task["class"], task["fields"]
    if not isinstance(name, str) or not isinstance(fields, dict):
        raise TaskError('"class" is not text, or "fields" is not an object')
    task_class = _find_class(name)
    _check_names(task_class, fields)
    try:
        built = object.__new__(task_class)
        built.__dict__.update(fields)
    except (TypeError, AttributeError) as error:
        raise TaskError(f"{name} is no plain class: {error}") from None
    return built


def _check_names(task_class, fields):
    for field in fields:
        if not field.isidentifier() or field.startswith("__"):
            raise TaskError(f"{field!r} cannot be the name of a field")
        attribute = inspect.getattr_static(task_class, field, None)  # a default, as dataclasses have, is fine
        if callable(attribute) or hasattr(type(attribute), "__get__"):
            raise TaskError(f"field {field!r} would hide a method or property of {task_class.__name__}")


def _refuse_constant(text):
    raise ValueError(f"{text} is not a JSON number")


def _find_class(name):
    found = _registered.get(name)
    if found is None:
        found = vars(sys.modules["__main__"]).get(name)
        # What __main__ has merely imported was not meant to be built by strangers.
        if not isinstance(found, type) or found.__module__ != "__main__":
            raise TaskError(f"no class {name!r} is defined in this program's __main__ or registered")
    return found
