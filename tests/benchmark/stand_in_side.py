"""The process of a side, but for what it computes: the first step of every side but the matrix product never ends.

It says that the step has begun by writing its name into the file that STARTED names, and has that open from then on.
"""

import os
import threading

from keras_resnet.benchmark import side_process
from keras_resnet.benchmark.sides import Side
from keras_resnet.benchmark.workload import MATRIX_PRODUCT


def make_side(job):
    def begin_and_stay():
        with open(os.environ["STARTED"], "w") as started:
            print(job.side, file=started, flush=True)
            threading.Event().wait()

    first = (lambda: None) if job.side == MATRIX_PRODUCT else begin_and_stay
    return Side(first, lambda steps: print("steps:", steps), "cpu")


if __name__ == "__main__":
    side_process.make_side = make_side
    side_process.main()
