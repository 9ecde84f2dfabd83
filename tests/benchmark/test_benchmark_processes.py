"""The processes of a benchmark: what they say to each other, and how they end, with sides that compute nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from benchmark_fakes import WORKLOAD

from keras_resnet import InputError
from keras_resnet.benchmark import messages, processes
from keras_resnet.benchmark.messages import (
    Duration,
    ExportJob,
    FirstStep,
    MeasureJob,
    MemoryRequest,
    PeakMemory,
    Ready,
    Refusal,
    Steps,
)
from keras_resnet.benchmark.processes import SideFailed, SideProcess, SideUnavailable, make_environment
from keras_resnet.benchmark.side_process import measure_peak_bytes

STAND_IN = Path(__file__).with_name("stand_in_side.py")
PRODUCT = MeasureJob("matrix product", WORKLOAD)
OURS = MeasureJob("ours", WORKLOAD, "a folder")


@pytest.mark.parametrize(
    "message",
    [
        *(OURS, PRODUCT, ExportJob("stock", WORKLOAD, "f"), FirstStep(), Steps(3), MemoryRequest(), Ready(0.5, "cpu")),
        *(Duration(2.5), PeakMemory(7), Refusal("no C++\ncompiler")),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_is_a_line_that_reads_as_the_same(message):
    line = messages.dump(message)
    assert line.index("\n") == len(line) - 1
    assert messages.load(line) == message


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ('{"kind": "Step", "count": 1}', "The kind of a message must be one of 'MeasureJob', .*Did you mean 'Steps'"),
        ('{"count": 1}', "The kind of a message must be one of .*Received: None"),
        ('{"kind": "Steps"}', "A Steps needs count. Received: nothing"),
        ('{"kind": "Steps", "count": 1.5}', "A Steps: count must be int. Received: 1.5"),
        ('{"kind": "Steps", "count": 1, "side": "ours"}', "A Steps has the fields count. Received: 'side'"),
    ],
)
def test_a_line_that_is_no_message_is_refused(line, error):
    with pytest.raises(InputError, match=error):
        messages.load(line)


def start(tmp_path, job):
    return SideProcess("The process of 'x'", job, tmp_path / "x.log", make_environment(1, tmp_path))


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(processes, "COMMAND", (sys.executable, str(STAND_IN)))


def test_a_child_that_fails_is_an_error_with_the_end_of_its_log(tmp_path):
    with start(tmp_path, Steps(1)) as process, pytest.raises(SideFailed) as error:  # no job
        process.receive(Ready)
    first, *log = str(error.value).splitlines()
    assert first == "The process of 'x' ended with exit code 1. The end of its log:"
    assert log[-1].startswith("AssertionError")


def test_a_child_that_is_killed_is_an_error(stand_in, tmp_path):
    with start(tmp_path, PRODUCT) as process:
        process.receive(Ready)  # from now on it waits for a request
        os.kill(process.process_id, signal.SIGKILL)
        with pytest.raises(SideFailed, match=r"was killed by signal 9, as the system does where memory runs out\. The"):
            process.ask(FirstStep(), Duration)


def test_a_child_that_cannot_says_why(monkeypatch, tmp_path):
    code = (
        "from keras_resnet.benchmark import side_process, sides\n"
        "def make_side(job): raise sides.Unavailable(f'no {job.side}')\n"
        "side_process.make_side = make_side\n"
        "side_process.main()"
    )
    monkeypatch.setattr(processes, "COMMAND", (sys.executable, "-c", code))
    with start(tmp_path, OURS) as process, pytest.raises(SideUnavailable, match=r"^no ours$"):
        process.receive(Ready)


def test_a_child_does_what_it_is_asked_and_ends_with_its_block(stand_in, tmp_path):
    with start(tmp_path, PRODUCT) as process:
        ready = process.receive(Ready)
        assert ready.seconds > 0
        assert ready.device == "cpu"
        assert process.ask(FirstStep(), Duration).seconds > 0
        assert process.ask(Steps(2), Duration).seconds > 0
        assert process.ask(MemoryRequest(), PeakMemory).size_bytes > 2**20
        child = psutil.Process(process.process_id)
        assert child.is_running()
    assert not child.is_running()
    # What a library prints goes to the log, so that the answers stay readable.
    assert (tmp_path / "x.log").read_text() == "steps: 2\n"


@pytest.fixture
def started(monkeypatch, tmp_path):
    """The path of a pipe that a child which has begun its endless step writes into, and keeps open while it lives."""
    path = tmp_path / "started"
    os.mkfifo(path)
    monkeypatch.setenv("STARTED", str(path))
    return path


PARENT = f"""
import os, signal, sys
opened = open(os.environ["STARTED"], "w")  # without a parent and a child the reader's wait ends
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has inherited that it is ignored
from keras_resnet.benchmark import processes
processes.COMMAND = (sys.executable, {str(STAND_IN)!r})
"""


def test_children_end_with_a_parent_that_is_killed(started, tmp_path):
    code = (
        f"{PARENT}\n"
        "from keras_resnet.benchmark import Workload, messages\n"
        f"job = messages.load({messages.dump(OURS)!r})\n"
        f"scratch = Path({str(tmp_path)!r})\n"
        "process = processes.SideProcess('x', job, scratch / 'x.log', processes.make_environment(1, scratch))\n"
        "process.receive(messages.Ready)\n"
        "process.ask(messages.FirstStep(), messages.Duration)"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as parent, open(started) as child:
        assert child.readline() == "ours\n"  # the child is in the midst of a step that never ends
        parent.kill()
        assert child.read() == ""  # until the child, who alone has it open, has ended
        assert parent.wait() == -signal.SIGKILL


def test_ctrl_c_leaves_no_child(started, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = (
        f"{PARENT}\n"
        "from keras_resnet import cli\n"
        "from keras_resnet.cli import benchmarks\n"
        "benchmarks._describe = dict  # the machine's description takes TensorFlow\n"
        "cli.main()"
    )
    command = [sys.executable, "-c", code, "benchmark", "resnet8_cifar", "--against", "none"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as parent, open(started) as child:
        assert child.readline() == "ours\n", parent.communicate()[1]  # in the midst of a step that never ends
        children = psutil.Process(parent.pid).children(recursive=True)
        (scratch,) = tmp_path.glob("keras_resnet_benchmark_*")
        parent.send_signal(signal.SIGINT)
        said = parent.communicate()[1]
    assert parent.returncode == 130
    assert said.endswith("Stopped.\n")
    assert len(children) == 2  # ours and the matrix product
    assert not any(process.is_running() for process in children)
    assert not scratch.exists()


def test_peak_memory_is_of_this_process():
    now = psutil.Process().memory_info().rss
    assert measure_peak_bytes() >= now * 0.9  # the kernel counts both a little late
