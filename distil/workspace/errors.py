"""The error of the workspace: what a person reads when a stage cannot start or go on."""

from __future__ import annotations


class StageError(RuntimeError):
    """A stage cannot start or go on; the message says what to do."""
