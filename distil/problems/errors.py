"""The error of every source of problems."""


class ProblemError(ValueError):
    """The problems cannot be used; the message names the file, the line and what to change."""
