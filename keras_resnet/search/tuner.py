"""`make_tuner`: a KerasTuner tuner that keeps the budget, goes on after any interruption and says why a trial failed."""

from __future__ import annotations

import copy
import gc
import math
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import psutil
from keras_tuner.errors import FailedTrialError

from keras_resnet.epochs import Epoch, EpochLog
from keras_resnet.errors import InputError
from keras_resnet.files import write_beside
from keras_resnet.models import load_weights
from keras_resnet.search.hypermodel import HyperResNet
from keras_resnet.search.oracles import REASON_FILE, WholeTuner, make_oracle
from keras_resnet.search.progress import Progress

ERROR_FILE = "error.txt"  # in a trial's folder: the traceback of what is no trial's own fault
_IDLE_SECONDS = 0.3  # between two questions to an oracle that has nothing to do yet


class TrialCheckpoint:
    """A trial's folder as the place that keeps its epochs; an epoch whose loss is no number fails the trial.

    Args:
        progress: of the trial.
        best_path: where the best epoch's weights go, which is where KerasTuner's `get_best_models` looks.
    """

    def __init__(self, progress: Progress, best_path: str | os.PathLike[str]) -> None:
        self._progress, self._best_path = progress, best_path

    @property
    def best(self) -> Epoch | None:
        """The best of the epochs that are saved."""
        return EpochLog(self._progress.epochs).best

    @property
    def epochs(self) -> Sequence[Epoch]:
        """The epochs of a process that ended before the trial did."""
        return self._progress.epochs

    def resume(self, model: keras.Model) -> None:
        """Loads weights and optimizer as they were after the last of these epochs."""
        load_weights(model, self._progress.folder / str(self._progress.checkpoint))

    def save_epoch(self, model: keras.Model, log: EpochLog, *, whole: bool) -> None:
        """Saves the best weights and what going on takes; an epoch that is not whole is started anew later."""
        latest = log.epochs[-1]
        for name, value in (("loss", latest.loss), ("val_loss", latest.val_loss)):
            _check_finite(name, value, latest.number)
        if not whole:
            return
        if log.latest_is_best:
            write_beside(self._best_path, model.save_weights)
        self._progress.save_epoch(model, log.epochs)

    def load_best(self, model: keras.Model) -> bool:
        """Leaves the model: the next trial builds its own."""
        return False


def _check_finite(name: str, value: float | None, epoch: int) -> None:
    if value is not None and not math.isfinite(value):
        raise FailedTrialError(f"{name} became {value} in epoch {epoch}")


class _FailAtNan(keras.callbacks.Callback):
    """Ends a trial at once where its loss is no number."""

    some_steps_will_do = True  # a mean that was NaN once stays so

    def __init__(self) -> None:
        super().__init__()
        self._epoch = 0  # counted from 1

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Notes the epoch's number."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Fails the trial where the loss is NaN or infinite."""
        _check_finite("loss", (logs or {}).get("loss"), self._epoch)


class Tuner(WholeTuner, keras_tuner.Tuner):
    """A KerasTuner tuner for a `HyperResNet` whose trials survive their process.

    A trial writes weights, optimizer and history after each epoch; started again it goes on from there and, where
    `make_data` takes `first_epoch`, comes to what it would have come to. A trial that Hyperband promotes starts from
    the weights of the one it comes from. NaN and lack of memory fail the trial, with the reason as its message;
    any other error is raised.

    Args:
        oracle: from `make_oracle`.
        hypermodel: what is built and trained.
        memory_limit: bytes of resident memory; above it, or where the next trial would go above it by estimate,
            `search` returns with `out_of_memory` set, to be called again in a new process.
        rpc_timeout: seconds after which a chief that does not answer is an error.
        options: further arguments of `keras_tuner.Tuner`, such as `directory` and `project_name`.
    """

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        hypermodel: HyperResNet,
        *,
        memory_limit: int | None = None,
        rpc_timeout: float = 60.0,
        **options: Any,
    ) -> None:
        if not isinstance(hypermodel, HyperResNet):
            raise InputError(f"hypermodel must be a HyperResNet. Received: {hypermodel!r}.")
        super().__init__(oracle, hypermodel, **options)
        self.memory_limit, self.out_of_memory = memory_limit, False
        if hasattr(self.oracle, "stub"):  # a worker of a chief
            self.oracle.stub = _TimedStub(self.oracle.stub, rpc_timeout)

    def _populate_initial_space(self) -> None:
        """The oracle knows the space already; KerasTuner would build network after network to find it."""

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Runs trials until the oracle has no more; arguments as for `HyperResNet.fit`. In a chief, serves workers."""
        if os.environ.get("KERASTUNER_ORACLE_IP") and "chief" in self.tuner_id:
            super().search(*fit_args, **fit_kwargs)
            return
        if "verbose" in fit_kwargs and hasattr(self.oracle, "verbose"):
            self.oracle.verbose = fit_kwargs["verbose"]
        self.save()  # KerasTuner would first at the end of a trial, and read no file of ours before
        finished = 0
        while True:
            trial = self.oracle.create_trial(self.tuner_id)
            if trial.status == "STOPPED":
                return
            if trial.status == "IDLE":  # nothing to do before another worker is done
                time.sleep(_IDLE_SECONDS)
                continue
            if finished and self._exceeds(self._estimate(trial)):
                self.out_of_memory = True
                return
            self.on_trial_begin(trial)
            self._run(trial, fit_args, fit_kwargs)
            self.on_trial_end(trial)
            finished += 1
            if self._exceeds(0):
                self.out_of_memory = True
                return

    def on_trial_end(self, trial: Any) -> None:
        """Tells the oracle; only then is what going on would need removed."""
        super().on_trial_end(trial)
        folder = Path(self.get_trial_dir(trial.trial_id))
        Progress(folder).finish()
        (folder / ERROR_FILE).unlink(missing_ok=True)  # of a bug that is mended

    def _estimate(self, trial: Any) -> int:
        spec, _ = self.hypermodel.sample(trial.hyperparameters)
        return self.hypermodel.candidates.estimate_memory(spec)

    def _exceeds(self, more: int) -> bool:
        return self.memory_limit is not None and psutil.Process().memory_info().rss + more > self.memory_limit

    def _run(self, trial: Any, fit_args: tuple[Any, ...], fit_kwargs: dict[str, Any]) -> None:
        folder = Path(self.get_trial_dir(trial.trial_id))
        try:
            best = self.run_trial(trial, *fit_args, **fit_kwargs)
            metrics = {**best.figures, "learning_rate": best.learning_rate}
            self.oracle.update_trial(trial.trial_id, metrics, step=best.number)
            trial.status = "COMPLETED"
        except FailedTrialError as error:
            reason = str(error)
        except Exception as error:
            if not _is_out_of_memory(error):
                (folder / ERROR_FILE).write_text(traceback.format_exc(), "utf-8")
                Progress(folder).forgive()
                raise
            reason = f"out of memory: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        if trial.status != "COMPLETED":
            trial.status, trial.message = "FAILED", reason
            write_beside(folder / REASON_FILE, lambda path: path.write_text(reason, "utf-8"))

    def run_trial(self, trial: Any, *fit_args: Any, **fit_kwargs: Any) -> Epoch:
        """Trains the network of a trial, from its last epoch if it has any, and returns its best epoch."""
        hp, progress = trial.hyperparameters, Progress(self.get_trial_dir(trial.trial_id))
        first_epoch = hp.values.get("tuner/initial_epoch", 0)
        progress.begin(first_epoch)
        recipe = self.hypermodel.sample(hp)[1]
        epochs = hp.values.get("tuner/epochs", fit_kwargs.pop("epochs", None) or recipe.epochs)
        keras.backend.clear_session()
        gc.collect()
        keras.utils.set_random_seed(recipe.seed)
        model = self.hypermodel.build(hp)
        if first_epoch and not progress.epochs:
            load_weights(model, self._get_checkpoint_fname(hp.values["tuner/trial_id"]))
        checkpoint = TrialCheckpoint(progress, self._get_checkpoint_fname(trial.trial_id))
        try:
            self.hypermodel.fit(
                hp,
                model,
                *fit_args,
                epochs=epochs,
                initial_epoch=first_epoch,
                checkpoint=checkpoint,
                **{**fit_kwargs, "callbacks": [_FailAtNan(), *copy.deepcopy(fit_kwargs.get("callbacks", ()))]},
            )
        except KeyboardInterrupt:
            progress.forgive()  # only starts that end without a word count
            raise
        if checkpoint.best is None:
            raise FailedTrialError("no epoch ended with a finite loss")
        return checkpoint.best


class _TimedStub:
    """The calls of KerasTuner's client to its chief, with a time-out of ours: its own is an hour."""

    def __init__(self, stub: Any, seconds: float) -> None:
        self._stub, self._seconds = stub, seconds

    def __getattr__(self, name: str) -> Callable[..., Any]:
        import grpc

        call = getattr(self._stub, name)

        def timed(request: Any, **options: Any) -> Any:
            try:
                return call(request, **{**options, "timeout": self._seconds})
            except grpc.RpcError as error:
                address = f"{os.environ.get('KERASTUNER_ORACLE_IP')}:{os.environ.get('KERASTUNER_ORACLE_PORT')}"
                raise InputError(
                    f"The chief at {address} did not answer {name} within {self._seconds:g} s: {error.details()}. "
                    "KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT must be those of a running chief."
                ) from error

        return timed


def _is_out_of_memory(error: Exception) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error).lower()
    return bool(names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"}) or (
        "out of memory" in text or "bad_alloc" in text or "oom when allocating" in text
    )


def make_tuner(
    kind: str,
    hypermodel: HyperResNet,
    *,
    objective: str | keras_tuner.Objective = "val_accuracy",
    max_trials: int | None = 20,
    epochs: int | None = None,
    seed: int | None = None,
    directory: str | os.PathLike[str] | None = None,
    project_name: str | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Tuner:
    """Returns a KerasTuner tuner over the points of `hypermodel` inside its budget, resumable within a trial.

    Args:
        kind: "random", "bayesian", "hyperband" or "grid".
        hypermodel: space, budget, recipe.
        objective: what is optimized, as for KerasTuner.
        max_trials: at most so many; of Hyperband every rung of a network is a trial.
        epochs: of a trial, of Hyperband's last rung; by default the recipe's.
        seed: of the proposals.
        directory: where KerasTuner keeps its files.
        project_name: the folder in it; an existing one is gone on with.
        overwrite: starts anew instead.
        options: further arguments of KerasTuner's oracle, such as `factor` of Hyperband.

    Raises:
        InputError: another kind.
    """
    oracle = make_oracle(
        kind,
        hypermodel.candidates,
        objective=objective,
        max_trials=max_trials,
        epochs=epochs,
        seed=seed,
        **options,
    )
    return Tuner(oracle, hypermodel, directory=directory, project_name=project_name, overwrite=overwrite)
