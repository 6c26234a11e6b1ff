"""The broker's settings as options, and what they come to."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any, Final

from broker.exits import Exit, ExitError

PRECEDENCE: Final = """\
A setting NAME may also stand in the file (NAME = value, TOML) or in the environment (KOTAK_NAME).
The flag wins over the environment, the environment over the file. KOTAK_CONFIG names the file."""
#: What says which folder is meant, for the commands on it.
FOLDER_SETTINGS: Final = ("data",)


def add_settings(parser: argparse.ArgumentParser, names: Sequence[str] | None = None) -> None:
    """Add ``--config`` and the flags of the settings, grouped, their defaults in the help."""
    from broker.config import SETTINGS, show

    parser.add_argument("--config", metavar="FILE", help="the settings, as TOML")
    groups: dict[str, Any] = {}
    for setting in SETTINGS.values():
        if names is not None and setting.name not in names:
            continue
        if setting.group not in groups:
            groups[setting.group] = parser.add_argument_group(setting.group)
        default = "~/.local/share/kotak" if setting.name == "data" else show(setting.default)
        options: dict[str, Any] = {"dest": setting.name, "default": None}
        if default in ("true", "false"):
            default = "yes" if default == "true" else "no"  # a switch takes no value
        options["help"] = f"{setting.help} (default: {default})".replace("%", "%%")
        if setting.form:
            options["metavar"] = setting.form
        else:
            options["action"] = argparse.BooleanOptionalAction
        groups[setting.group].add_argument(setting.flag, **options)


def load_settings(args: argparse.Namespace) -> Any:
    """Return `broker.config.Loaded`. Errors: `ExitError` with the configuration's sentence."""
    from broker.config import SETTINGS, ConfigError, load

    given = vars(args)
    flags = {name: given[name] for name in SETTINGS if name in given}
    try:
        return load(flags=flags, environ=os.environ, file=args.config)
    except ConfigError as error:
        raise ExitError(Exit.USAGE, str(error)) from None


def start_logging(config: Any) -> None:
    """Log as the configuration says."""
    from broker import logs

    logs.configure(config.log_level, config.log_json)
