"""The command line: `induction-kernel --help` lists the commands.

It starts quickly: nothing but typer is imported before a command runs.
"""

from . import _census as _census
from . import _commands as _commands
from . import _explore as _explore
from . import _studies as _studies
from ._app import app as app

__all__ = ["app"]
