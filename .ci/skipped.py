"""Prints which tests of a JUnit file (`pytest --junitxml=FILE -o junit_family=xunit1`) were skipped, one a line.

A module that was skipped as a whole is printed as a file.
"""

import sys
from xml.etree import ElementTree

found = {}
for case in ElementTree.parse(sys.argv[1]).iter("testcase"):
    if case.find("skipped") is not None:
        path, name = case.get("file"), case.get("name")
        whole = name == path.removesuffix(".py").replace("/", ".")  # a module is called by its own name
        found[path if whole else f"{path}::{name}"] = None
if not found:
    sys.exit("no test was skipped: are the packages of the extras there already?")
print(*found, sep="\n")
