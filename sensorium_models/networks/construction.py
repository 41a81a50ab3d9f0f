"""From a class path and settings in a system's file to an instance; a sentence for each mistake.

The only place that turns `package.module:Class` into a class.
"""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from sensorium_models.configuration import ConfigurationError


def resolve(class_path: str) -> type[Any]:
    """The class behind `package.module:Class`.

    Raises:
        ConfigurationError: the module cannot be imported or has no such class.
    """
    module_name, _, class_name = class_path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigurationError(
            f"{class_path}: module {module_name} cannot be imported ({type(error).__name__}: "
            f"{error}); is it installed, or its folder on PYTHONPATH?"
        ) from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = sorted(
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module_name
        )
        raise ConfigurationError(
            f"{class_path}: module {module_name} has no class {class_name}; "
            f"it has {', '.join(classes) or 'no classes'}"
        )
    return found


def resolved(role: str, class_path: str, where: str) -> type[Any]:
    """`resolve`, with `where` and `role` (core, readout, shifter) before an error's sentence."""
    try:
        return resolve(class_path)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {role}: {error}") from error


def construct(
    class_path: str, role: str, settings: Mapping[str, Any], given: Mapping[str, Any], where: str
) -> nn.Module:
    """An instance of `class_path` from what the builder gives and the settings of the file.

    `where` (a file, say) and `role` (core, readout, shifter) begin every error's sentence.

    Raises:
        ConfigurationError: an unknown, missing or invalid setting.
    """
    chosen = resolved(role, class_path, where)
    taken = inspect.signature(chosen).parameters.values()
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken)
    named = [p for p in taken if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    allowed = [parameter.name for parameter in named if parameter.name not in given]
    for key in settings:
        if key in given or not (key in allowed or open_ended):
            raise ConfigurationError(
                f"{where}: {role}_settings: unknown key {key}; {class_path} takes "
                f"{', '.join(allowed) or 'no settings'}"
            )
    for parameter in named:
        required = parameter.name in allowed and parameter.default is parameter.empty
        if required and parameter.name not in settings:
            raise ConfigurationError(
                f"{where}: {role}_settings: {parameter.name} is missing; {class_path} takes "
                f"{', '.join(allowed)}"
            )
    try:
        return chosen(**given, **settings)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{where}: {role}_settings: {error}") from error
