"""Locks that name their holder and die with it."""

import subprocess
import sys
import time

import pytest

from datastore_lab.errors import Locked
from datastore_lab.locks import FileLock


def test_a_second_holder_is_told_who_has_it(tmp_path):
    lock = FileLock(tmp_path / "a.lock", "the store")
    assert lock.held
    with pytest.raises(Locked, match=r"the store is in use by process .*this process"):
        FileLock(tmp_path / "a.lock", "the store")
    lock.release()
    lock.release()
    assert not (tmp_path / "a.lock").exists()
    FileLock(tmp_path / "a.lock", "the store").release(remove=False)
    assert (tmp_path / "a.lock").exists()
    FileLock(tmp_path / "a.lock", "the store").release()


def test_a_lock_dies_with_its_process_and_a_waiter_gets_it(tmp_path):
    code = """
import sys
from datastore_lab.locks import FileLock
lock = FileLock(sys.argv[1], "it")
print("held", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(Locked, match=f"process {child.pid} "):
            FileLock(tmp_path / "a.lock", "it")
        started = time.monotonic()
        with pytest.raises(Locked):
            FileLock(tmp_path / "a.lock", "it", timeout=0.2)
        assert time.monotonic() - started >= 0.2
        child.kill()
        FileLock(tmp_path / "a.lock", "it", timeout=10).release()
