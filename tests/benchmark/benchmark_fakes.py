"""A small workload, sides that only say how long they took, and sides in this process."""

import queue
import threading

from keras_resnet.benchmark import Workload, messages
from keras_resnet.benchmark.messages import Duration, Exported, ExportJob, FirstStep, MemoryRequest, PeakMemory, Ready
from keras_resnet.benchmark.side_process import do_job

WORKLOAD = Workload("resnet8_cifar", "train", 4, (8, 8, 3), 10, "float32", threads=1)


class FakeSides:
    """Stands for `SideProcess`: answers as processes would, at once."""

    def __init__(self):
        # Of each side the seconds of a step, a function of how many times it was asked for steps that returns them, or
        # an error to raise: at the first step, or from the function at a later one.
        self.seconds = {"matrix product": 0.125}
        self.device = "cpu"
        self.stop_at = None  # the batch size at which Ctrl-C comes
        self.started = []  # (kind of job, side)
        self.turns = []  # (side, steps)
        self.running = 0

    def start(self, name, job, log_path, environment):
        """As `SideProcess(...)`."""
        self.started.append((type(job).__name__, job.side))
        return FakeProcess(self, job)


class FakeProcess:
    def __init__(self, sides, job):
        self.sides, self.job, self.asked = sides, job, 0

    def __enter__(self):
        self.sides.running += 1
        return self

    def __exit__(self, *_):
        self.sides.running -= 1

    def receive(self, answer):
        if isinstance(self.job, ExportJob):
            assert answer is Exported
            return Exported(f"folder of {self.job.side}")
        if self.job.workload.batch_size == self.sides.stop_at:
            raise KeyboardInterrupt
        assert answer is Ready
        return Ready(2.0, self.sides.device)

    def ask(self, request, answer):
        if isinstance(request, MemoryRequest):
            assert answer is PeakMemory
            return PeakMemory(3 * 2**20)
        assert answer is Duration
        seconds = self.sides.seconds[self.job.side]
        if isinstance(request, FirstStep):
            return Duration(_take(9.0 if callable(seconds) or isinstance(seconds, float) else seconds))
        self.sides.turns.append((self.job.side, request.count))
        self.asked += 1
        return Duration(_take(seconds(self.asked) if callable(seconds) else seconds) * request.count)


def _take(seconds):
    if isinstance(seconds, Exception):
        raise seconds
    return seconds


class SideThread:
    """Stands for `SideProcess`: a thread does the job; the same lines go to it and come from it."""

    def __init__(self, name, job, log_path, environment):
        self.requests, self.answers = queue.SimpleQueue(), queue.SimpleQueue()
        self.requests.put(messages.dump(job))
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self):
        try:
            do_job(self._next, lambda answer: self.answers.put(messages.dump(answer)))
        except Ended:
            pass
        except BaseException as error:
            self.answers.put(error)

    def _next(self):
        line = self.requests.get()
        if line is None:
            raise Ended
        return messages.load(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.requests.put(None)
        self.thread.join()

    def receive(self, answer):
        line = self.answers.get()
        if isinstance(line, BaseException):
            raise line
        received = messages.load(line)
        assert isinstance(received, answer)
        return received

    def ask(self, request, answer):
        self.requests.put(messages.dump(request))
        return self.receive(answer)


class Ended(Exception):
    """There are no more requests."""
