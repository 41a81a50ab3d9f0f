"""Reading configuration files, laying one over another, and saying what is wrong in which of them.

The only reader of YAML. Whatever is wrong ends in a `ConfigurationError`, whose sentences name the
file that holds the value in force, the key and what is allowed.
"""

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

REPOSITORY = Path(__file__).resolve().parent.parent

Model = typing.TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """Base of every part of the configuration: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ConfigurationError(ValueError):
    """A configuration that cannot be run; the message names file, key and what is allowed."""


class Origin:
    """Which file a key came from, so that an error can say where to look."""

    def __init__(
        self, contents: Sequence[tuple[Path, Mapping[str, Any]]], final: Mapping[str, Any]
    ) -> None:
        self._contents = list(contents)
        self._final = final

    def error(self, key: str, sentence: str) -> ConfigurationError:
        """A `ConfigurationError` about a dotted `key`."""
        return ConfigurationError(f"{self.of(key.split('.'))}: {key}: {sentence}.")

    def of(self, path: Sequence[str]) -> str:
        """The file whose value at `path` (or at the section around it) is the one in force."""
        for length in range(len(path), 0, -1):
            value = _value(self._final, path[:length])
            if value is _ABSENT:
                continue
            files = [(f, _value(content, path[:length])) for f, content in self._contents]
            holding = [(f, theirs) for f, theirs in files if theirs is not _ABSENT]
            same = [f for f, theirs in holding if theirs == value]
            if same:
                return str(same[-1])
            # A section may be put together from several files; a value comes from one place.
            return str(holding[-1][0]) if holding and isinstance(value, Mapping) else "--config"
        return str(self._contents[-1][0]) if self._contents else "configuration"


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigurationError: the file is missing, is not YAML, or holds no mapping.
    """
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: is not valid YAML: {error}.") from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{file}: must hold keys and values, not {type(content).__name__}."
        )
    return content


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on top: mappings merge key by key, everything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def validated(model: type[Model], content: dict[str, Any], origin: Origin) -> Model:
    """`content` as a `model`.

    Raises:
        ConfigurationError: one sentence for every problem found.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        sentences = [_sentence(model, problem, origin) for problem in error.errors()]
        raise ConfigurationError("\n".join(dict.fromkeys(sentences))) from None


def _sentence(model: type[BaseModel], problem: Any, origin: Origin) -> str:
    # The tag of a union is part of pydantic's location but no key of the file.
    path = _without_tags(model, problem["loc"])
    key = ".".join(path) or "(whole file)"
    kind = problem["type"]
    if kind == "extra_forbidden":
        allowed = _keys_at(model, problem["loc"][:-1])
        text = f"unknown key; allowed here: {', '.join(allowed)}" if allowed else "unknown key"
    elif kind == "missing":
        text = "is missing; add it"
    else:
        message = problem["msg"].removeprefix("Value error, ")
        text = f"{message} (it is {problem['input']!r})"[:500]
    return f"{origin.of(path)}: {key}: {text}."


def _without_tags(model: Any, location: Sequence[Any]) -> list[str]:
    path = []
    for part in location:
        if part not in _options(model):
            path.append(str(part))
        model = _inside(model, part)
    return path


def _keys_at(model: Any, location: Sequence[Any]) -> list[str]:
    """Allowed keys of the section at a pydantic location; empty where that is no fixed section."""
    for part in location:
        model = _inside(model, part)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return sorted(set(model.model_fields) - {"name"})
    return []


def _inside(model: Any, part: Any) -> Any:
    model = _bare(model)
    if isinstance(model, type) and issubclass(model, BaseModel):
        field = model.model_fields.get(str(part))
        return field.annotation if field else None
    options = _options(model)
    if part in options:
        return options[part]
    arguments = typing.get_args(model)
    if typing.get_origin(model) in _UNIONS:
        return next((a for a in arguments if a is not type(None)), None)
    return arguments[-1] if arguments else None


def _options(model: Any) -> dict[Any, type[BaseModel]]:
    """Sections among which a key `kind` chooses, by its value."""
    model = _bare(model)
    options = {}
    for option in typing.get_args(model) if typing.get_origin(model) in _UNIONS else ():
        kind = getattr(option, "model_fields", {}).get("kind")
        if kind is not None:
            options.update(dict.fromkeys(typing.get_args(kind.annotation), option))
    return options


def _bare(model: Any) -> Any:
    """A type without `Annotated` and without `None`."""
    if typing.get_origin(model) is Annotated:
        return _bare(typing.get_args(model)[0])
    if typing.get_origin(model) in _UNIONS:
        some = [a for a in typing.get_args(model) if a is not type(None)]
        if len(some) == 1:
            return _bare(some[0])
    return model


_UNIONS = (typing.Union, types.UnionType)
_ABSENT = object()


def _value(content: Any, path: Sequence[str]) -> Any:
    for part in path:
        if not isinstance(content, Mapping) or part not in content:
            return _ABSENT
        content = content[part]
    return content
