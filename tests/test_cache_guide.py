"""The guide to the key: its code runs, and what it says is refused is refused in these words."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "cache-key.md"
ROW = re.compile(r"^\| `(.+?)` \| (.+?) \| (.+?) \|$", flags=re.MULTILINE)
REFUSED = [(code.replace("\\|", "|"), message) for code, message, _ in ROW.findall(PAGE.read_text())]

PROGRAM = """
import gc, importlib, itertools, pickle, sys, threading, weakref
import numpy as np
from datastore_lab import cached, open_store
from datastore_lab.errors import NotStorable

class Thing:
    pass

thing = Thing()

def ask(x=None):
    return {expression}

value = {argument}
try:
    cached(ask)(value)
except NotStorable as error:
    print(error)
"""


def test_the_guide_runs(tmp_path):
    """In a process of its own: a cached function needs source that can be found again."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    script = tmp_path / "guide.py"
    script.write_text("\n\n".join(blocks))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("code", "message"), REFUSED, ids=[code for code, _ in REFUSED])
def test_what_is_refused(tmp_path, code, message):
    is_code = code.startswith("return ")
    expression, argument = (code.removeprefix("return "), "1") if is_code else ("1", code)
    script = tmp_path / "refused.py"
    script.write_text(PROGRAM.format(expression=expression, argument=argument))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert message in done.stdout
