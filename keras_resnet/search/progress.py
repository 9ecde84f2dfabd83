"""`Progress`: what is on disk of a trial, to read and to go on from. It needs neither Keras nor KerasTuner."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_resnet.epochs import Epoch
from keras_resnet.files import write_beside

PROGRESS_FILE = "progress.json"  # in a trial's folder: its epochs so far and the file to go on from
_MOST_ATTEMPTS = 3  # at the same epoch of a trial, before it is given up: killed for want of memory, most likely


class Progress:
    """What is on disk of a trial: its epochs and a checkpoint to go on from, which is always that of the last of them."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.epochs: list[Epoch] = []
        self.checkpoint: str | None = None  # the file of weights and optimizer after the last of the epochs
        self.attempts = 0  # starts that came to the epoch after those
        self.seconds = 0.0  # of work, without the parts of epochs that were lost
        self._since = time.monotonic()
        state = self._read()
        if state is not None:
            self.epochs, self.checkpoint = [Epoch.from_row(row) for row in state["records"]], state["checkpoint"]
            self.attempts, self.seconds = state["attempts"], state["seconds"]

    def _read(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.folder / PROGRESS_FILE).read_text("utf-8"))
        except FileNotFoundError:
            return None

    def _write(self) -> None:
        state = {
            "records": [epoch.to_row() for epoch in self.epochs],
            "checkpoint": self.checkpoint,
            "attempts": self.attempts,
            "seconds": self.seconds,
        }
        write_beside(self.folder / PROGRESS_FILE, lambda path: path.write_text(json.dumps(state), "utf-8"))

    def begin(self, first_epoch: int = 0) -> None:
        """Counts a start; raises FailedTrialError where so many have ended before the next epoch did.

        Args:
            first_epoch: epochs that the trial this one goes on from has done.
        """
        if self.attempts >= _MOST_ATTEMPTS:
            from keras_tuner.errors import FailedTrialError

            raise FailedTrialError(
                f"the worker died {self.attempts} times in epoch {self.count_epochs(first_epoch) + 1} of this trial: "
                "out of memory?"
            )
        self.attempts += 1
        self._write()

    def count_epochs(self, first_epoch: int = 0) -> int:
        """Returns how many epochs the network has seen."""
        return self.epochs[-1].number if self.epochs else first_epoch

    def forgive(self) -> None:
        """Forgets the starts that ended early: whoever starts the search again means to go on."""
        if self.attempts:
            self.attempts = 0
            self._write()

    def save_epoch(self, model: Any, epochs: Sequence[Epoch]) -> None:
        """Saves weights and optimizer, then the epochs so far and the file's name, then removes what came before."""
        before, self.checkpoint = self.checkpoint, f"epoch_{len(epochs)}.weights.h5"
        write_beside(self.folder / self.checkpoint, model.save_weights)
        self.epochs, self.attempts = list(epochs), 1  # this start is at the next epoch now
        now = time.monotonic()
        self.seconds, self._since = self.seconds + now - self._since, now
        self._write()
        if before is not None and before != self.checkpoint:
            (self.folder / before).unlink(missing_ok=True)

    def finish(self) -> None:
        """Removes what only going on would need."""
        if self.checkpoint is not None:
            (self.folder / self.checkpoint).unlink(missing_ok=True)
