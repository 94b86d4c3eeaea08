"""`python -m induction_kernel` does what the command `induction-kernel` does."""

from .cli._app import app

if __name__ == "__main__":
    app(prog_name="induction-kernel")
