"""Where the chief of a search listens, by KerasTuner's environment variables."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from keras_resnet.errors import InputError

_TUNER_ID, _ADDRESS, _PORT = VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Service:
    """Where the chief is, and what of the search runs on this machine."""

    address: str
    port: int
    runs_chief: bool  # here
    worker_prefix: str
    shared: bool  # other machines may take part

    @property
    def least_workers(self) -> int:
        """The fewest workers that this machine must run."""
        return 0 if self.shared and self.runs_chief else 1

    def make_variables(self, tuner_id: str) -> dict[str, str]:
        """Returns KerasTuner's variables for the process of this name."""
        return {_TUNER_ID: tuner_id, _ADDRESS: self.address, _PORT: str(self.port)}

    def answers(self) -> bool:
        """Whether anything listens there."""
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((self.address, self.port)) == 0

    def check_free(self) -> None:
        """Raises InputError where another process listens: gRPC would share the port and half of the calls be lost."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.address, self.port))
                probe.listen(1)
            except OSError as error:
                raise InputError(
                    f"The chief must be able to listen at {self.address}:{self.port} ({_ADDRESS} and {_PORT}), a port in "
                    f"use by no other process. Received: {error.strerror}."
                ) from error


def find_service() -> Service:
    """Reads KerasTuner's environment variables; without them the chief is this machine's own."""
    given = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if not given:
        with socket.socket() as free:  # the system's choice of a free port
            free.bind((_LOOPBACK, 0))
            port = free.getsockname()[1]
        return Service(_LOOPBACK, port, runs_chief=True, worker_prefix="worker", shared=False)
    if len(given) < len(VARIABLES):
        raise InputError(
            f"A search over several machines needs all of {', '.join(VARIABLES)}. Received: only {', '.join(given)}."
        )
    tuner_id, port = given[_TUNER_ID], given[_PORT]
    if not port.isdigit() or not 1 <= int(port) <= 65535:
        raise InputError(f"{_PORT} must be a port, 1 to 65535. Received: {port!r}.")
    runs_chief = "chief" in tuner_id
    prefix = "worker-" if runs_chief else f"{tuner_id}-"
    return Service(given[_ADDRESS], int(port), runs_chief, prefix, shared=True)
