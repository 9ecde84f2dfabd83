"""Records: frozen dataclasses that are JSON both ways, and the checks that their fields go through."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, Self, TypeVar

from keras_resnet.errors import InputError, suggest

T = TypeVar("T")


class Record:
    """JSON both ways for a frozen dataclass whose fields are plain values, tuples and other records."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON values; `from_dict` reads them back to an equal record."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the record from what `to_dict` returned; raises InputError on an unknown or missing field."""
        fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if not isinstance(values, Mapping):
            raise InputError(f"{_a(cls)} is read from a mapping of its fields. Received: {values!r}.")
        for name in values:
            if name not in fields:
                raise InputError(
                    f"{_a(cls)} has the fields {', '.join(sorted(fields))}. Received: {name!r}."
                    + suggest(str(name), fields)
                )
        missing = [name for name, field in fields.items() if name not in values and not _has_default(field)]
        if missing:
            raise InputError(f"{_a(cls)} needs {', '.join(missing)}. Received: {', '.join(values) or 'nothing'}.")
        kinds = _field_types(cls)
        return cls(**{name: _decode(kinds[name], value) for name, value in values.items()})


def option(default: Any, help: str, **facts: Any) -> Any:
    """A field of a record that says what it is for and what it may be; `check_options` and the command line read it.

    Args:
        default: of the field.
        help: a sentence for `--help` and the documentation.
        facts: `low` (0 unless given), `low_open`, `high`, `most` as for `check_number`; `choices`, the values there are;
            `each`, what each integer of a tuple is of; `example`, of a record as a value; `flag`, where the command line
            does not call it by the field's name; `shown`, what it says of a default that is decided later; `metavar`,
            what stands for the value.
    """
    return dataclasses.field(default=default, metadata={"help": help, **facts})


def check_options(record: Record) -> None:
    """Raises InputError where a field made by `option` is neither its default nor what it may be."""
    for name, default, check in _option_checks(typing.cast(Any, type(record))):
        value = getattr(record, name)
        if value is not default:
            check(record, name, value)


@functools.cache
def _option_checks(cls: Any) -> tuple[tuple[str, Any, Callable[[Record, str, Any], None]], ...]:
    """Returns (name, default, check) of each field of a class that `option` made."""
    return tuple((field.name, field.default, _make_check(kind, field.metadata)) for field, kind in list_options(cls))


def _make_check(kind: Any, facts: Mapping[str, Any]) -> Callable[[Record, str, Any], None]:
    inner, optional = get_plain_type(kind), types.NoneType in _options(kind)
    choices, low = facts.get("choices"), facts.get("low", 0)
    bounds = {key: facts[key] for key in ("high", "most", "low_open") if key in facts}

    def check(record: Record, name: str, value: Any) -> None:
        if value is None and optional:
            return
        if inner is int:
            take_counts(record, (name,), low)
        if choices is not None:
            check_choice(name, value, choices)
        elif inner is bool and not isinstance(value, bool):
            raise InputError(f"{name} must be True or False. Received: {value!r}.")
        elif inner is float:
            check_number(name, value, low=low, **bounds)
        elif inner == tuple[int, ...]:
            take_count_tuples(record, (name,), facts.get("each", "entry"))
        elif _is_record(inner) and not isinstance(value, inner):
            example = f", for example {facts['example']}" if "example" in facts else ""
            raise InputError(f"{name} must be a {inner.__name__}{example}. Received: {value!r}.")

    return check


def check_types(record: Record) -> None:
    """Raises InputError where a field of a record is not of its declared type: for records without checks of their own."""
    for name, kind in _field_types(type(record)).items():
        value = getattr(record, name)
        if not _is_of(kind, value):
            text = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
            raise InputError(f"{_a(type(record))}: {name} must be {text}. Received: {value!r}.")


def _a(cls: type) -> str:
    return f"{'An' if cls.__name__[0] in 'AEIOU' else 'A'} {cls.__name__}"


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _field_types(cls: type[Record]) -> dict[str, Any]:
    return _find_types(typing.cast(Any, cls))  # of which mypy does not know that it can be hashed


@functools.cache
def _find_types(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def list_options(record: type[Record]) -> list[tuple[dataclasses.Field[Any], Any]]:
    """Returns each field of a record that `option` made, with its type."""
    kinds = _field_types(record)
    fields = dataclasses.fields(record)  # type: ignore[arg-type]
    return [(field, kinds[field.name]) for field in fields if "help" in field.metadata]


def _options(kind: Any) -> tuple[Any, ...]:
    """The types that a union allows, or the one type."""
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def get_plain_type(kind: Any) -> Any:
    """Returns the one type beside None that a field may have."""
    (plain,) = [option for option in _options(kind) if option is not types.NoneType]
    return plain


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Record)


def _decode(kind: Any, value: Any) -> Any:
    """A JSON value as a field of this type has it: lists become tuples, mappings the records that they are of."""
    for option in _options(kind):
        if _is_record(option) and isinstance(value, Mapping):
            return option.from_dict(value)
        if typing.get_origin(option) is tuple and isinstance(value, list):
            inner = typing.get_args(option)
            each = inner[0] if inner[-1] is Ellipsis else Any
            return tuple(_decode(each, item) for item in value)
    return tuple(value) if isinstance(value, list) else value


def _is_of(kind: Any, value: Any) -> bool:
    for option in _options(kind):
        origin = typing.get_origin(option) or option
        if origin is Any or (origin is types.NoneType and value is None):
            return True
        if origin is float:
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return True
        elif origin is int:
            if isinstance(value, int) and not isinstance(value, bool):
                return True
        elif origin is tuple and isinstance(value, tuple):
            inner = typing.get_args(option)
            parts = [inner[0]] * len(value) if inner and inner[-1] is Ellipsis else inner
            if not inner or (len(parts) == len(value) and all(map(_is_of, parts, value))):
                return True
        elif isinstance(origin, type) and origin is not tuple and isinstance(value, origin):
            return True
    return False


def is_count(value: object, minimum: int = 1) -> bool:
    """Whether `value` is an integer, and no bool, of at least `minimum`."""
    if type(value) is int:  # nearly always; what is here is asked by the hundred thousand when a search counts networks
        return value >= minimum
    return hasattr(value, "__index__") and not isinstance(value, bool) and value >= minimum  # type: ignore[operator]


def is_number(value: object) -> bool:
    """Whether `value` is a finite number, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_count(name: str, value: Any, least: int = 1, *, optional: bool = False) -> None:
    """Raises InputError unless `value` is an integer of at least `least`, or with `optional` None."""
    if not (optional and value is None) and not is_count(value, least):
        either = "None or " if optional else ""
        raise InputError(f"{name} must be {either}an integer of at least {least}. Received: {value!r}.")


def take_counts(record: Record, names: Iterable[str], least: int = 1, *, optional: bool = False) -> None:
    """Checks fields of a record as `check_count` and keeps them as Python's integers: NumPy's are no JSON."""
    for name in names:
        value = getattr(record, name)
        if type(value) is int and value >= least:
            continue
        check_count(name, value, least, optional=optional)
        if value is not None:
            object.__setattr__(record, name, operator.index(value))


def take_count_tuples(record: Record, names: Iterable[str], each: str) -> None:
    """Checks that fields of a record are integers of at least 1, one for `each`, and keeps them as tuples of Python's."""
    for name in names:
        values = getattr(record, name)
        if type(values) is tuple:
            for value in values:
                if type(value) is not int or value < 1:
                    break
            else:
                continue
        if isinstance(values, (str, bytes, Set, Mapping)) or not isinstance(values, Iterable):
            raise InputError(f"{name} must be a tuple with one integer per {each}. Received: {values!r}.")
        values = tuple(values)  # a list (as JSON gives) would not hash
        if not all(map(is_count, values)):
            raise InputError(f"{name} must be integers of at least 1. Received: {values!r}.")
        object.__setattr__(record, name, tuple(map(operator.index, values)))


def check_number(
    name: str, value: Any, *, low: float, high: float | None = None, most: float | None = None, low_open: bool = False
) -> None:
    """Raises InputError unless `value` is at least `low` (above it for `low_open`), below `high`, at most `most`."""
    inside = (
        is_number(value)
        and (value > low or (value == low and not low_open))
        and (high is None or value < high)
        and (most is None or value <= most)
    )
    if not inside:
        bounds = [f"above {low}" if low_open else f"at least {low}"]
        bounds += [f"below {high}"] if high is not None else []
        bounds += [f"at most {most}"] if most is not None else []
        raise InputError(f"{name} must be {' and '.join(bounds)}. Received: {value!r}.")


def check_choice(what: str, received: object, allowed: Iterable[object]) -> None:
    """Raises InputError unless `received` is one of `allowed`; `what` opens the message."""
    allowed = tuple(allowed)
    if received not in allowed:
        raise InputError(
            f"{what} must be one of {', '.join(map(repr, allowed))}. Received: {received!r}."
            + suggest(str(received), map(str, allowed))
        )


def read_stored(path: str | os.PathLike[str], what: str, translate: Callable[[Mapping[str, Any]], T]) -> T:
    """Reads a JSON file into a record, by `translate`, which knows the layouts of all versions.

    Args:
        path: the file.
        what: "a run", "a search", ..., for the message.
        translate: from the file's mapping to the record.

    Raises:
        InputError: the file is no JSON, or not such a record.
        OSError: it cannot be read.
    """
    import json  # only where a file is read: records themselves are part of every start

    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        if not isinstance(values, dict):
            raise InputError(f"it holds {type(values).__name__}")
        return translate(values)
    except KeyError as error:
        raise InputError(f"{path} is not the record of {what} of this version: it has no {error}") from error
    except (ValueError, TypeError, AttributeError) as error:  # InputError is a ValueError
        raise InputError(f"{path} is not the record of {what} of this version: {error}") from error
