"""Runs scripts one after the other in one process, as a process of its own for each would: TensorFlow is loaded once.

    python run_scripts.py JOBS RESULTS

JOBS is a JSON list of objects: `name`; `folder`, which becomes the working directory; and either `path` and `arguments`
of a script, or `blocks`, pieces of one script that share their names as the cells of a notebook do. RESULTS receives one
line of JSON for each: `name`, `printed`, and `error`, the traceback or null.
"""

import contextlib
import io
import json
import os
import runpy
import sys
import traceback
from pathlib import Path


def run(job):
    """Runs one job and returns what it printed and the traceback of what it raised."""
    os.chdir(job["folder"])
    printed, error = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            if "path" in job:
                run_file(job["path"], job["arguments"])
            else:
                run_blocks(job["name"], job["blocks"])
    except (Exception, SystemExit):
        error = traceback.format_exc()
    return {"name": job["name"], "printed": printed.getvalue(), "error": error}


def run_file(path, arguments):
    """Runs a script as `python path arguments` does: its folder is where it finds its neighbors."""
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(Path(path).parent))
    try:
        runpy.run_path(path, run_name="__main__")
    finally:
        sys.path.pop(0)


def run_blocks(name, blocks):
    """Runs the blocks in order; a traceback names the page and the block's number."""
    names = {"__name__": "__main__"}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"{name}, block {number}", "exec"), names)


if __name__ == "__main__":
    jobs, results = sys.argv[1:]
    with open(results, "w", encoding="utf-8") as file:
        for each in json.loads(Path(jobs).read_text("utf-8")):
            print(json.dumps(run(each)), file=file, flush=True)
