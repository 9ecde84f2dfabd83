"""What the pages show and the examples are: scripts and commands, taken out of README.md, docs/ and examples/."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.name != "smoke_data.py")
_FENCE = re.compile(r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


def blocks_of(page, kind, *, also_not_run=False):
    """The blocks of one kind ("python", "sh") that a page shows, in order."""
    found = _FENCE.finditer(page.read_text("utf-8"))
    return [match["text"] for match in found if match["kind"] == kind and (also_not_run or not match["reason"])]


def run_in_one_process(jobs, folder, **environment):
    """Runs jobs, as `run_scripts` describes them, and returns their results by name; one that is missing ended the process."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    results = folder / "results.jsonl"
    whole = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "TMPDIR": str(folder), **environment}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("run_scripts.py"), folder / "jobs.json", results],
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in whole.items() if value is not None},
        check=False,
    )
    rows = [json.loads(line) for line in results.read_text("utf-8").splitlines()] if results.exists() else []
    ended = {"printed": "", "error": f"the process ended with {done.returncode}: {done.stderr[-4000:]}"}
    return {**{job["name"]: ended for job in jobs}, **{row["name"]: row for row in rows}}


def collected(request, parameter):
    """The values of a parameter over the tests of this module that were asked for, so that no others are prepared."""
    items = (item for item in request.session.items if item.path == request.path and hasattr(item, "callspec"))
    found = (item.callspec.params.get(parameter) for item in items)
    return list(dict.fromkeys(value for value in found if value is not None))
