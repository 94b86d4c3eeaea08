"""The command line: a command for each question, `induction-kernel --help` lists them.

Its start is quick: nothing but typer is imported before a command runs.
"""

from . import commands, studies
from ._app import app

__all__ = ["app", "commands", "studies"]
