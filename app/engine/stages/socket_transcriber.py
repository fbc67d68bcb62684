"""Shared by the stages that transcribe each utterance over a socket of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from app.engine.base import Hearing
from app.engine.stages.base import StageError, StageSpec, transcribe_turn

__all__ = ["SocketTranscriber", "drop"]


class SocketTranscriber:
    """A server that takes sound as it comes; `open` is each stage's own."""

    def __init__(self, spec: StageSpec) -> None:
        self._spec = spec

    @property
    def name(self) -> str:
        return self._spec.model

    @property
    def timeout_s(self) -> float:
        return self._spec.timeout_s

    def open(self) -> Hearing:
        """Begin an utterance."""
        raise NotImplementedError

    async def transcribe(self, pcm16: bytes) -> str:
        """Return the words in int16 mono PCM at 16 kHz.

        Raises:
            StageError: the stage failed.
        """
        return await transcribe_turn(self.open(), pcm16)

    def late(self) -> StageError:
        """The error of a turn whose words have not come in time."""
        message = f"{self.name}: no transcript within {self.timeout_s:g} s"
        return StageError(message, code="stage_timeout")


def drop(task: asyncio.Task[Any]) -> None:
    """Cancel the task of a turn that nobody waits for any more: it is not worth a warning."""
    task.cancel()
    task.add_done_callback(_look)


def _look(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
