"""Locks: one process at a time, others wait or are refused by name."""

import multiprocessing
import os
import threading
import time

import pytest

from data_pipelines.files.locks import lock_or_refuse, sole_maker


def test_the_second_is_told_who_holds_a_lock(tmp_path):
    with lock_or_refuse(tmp_path, work="sweeping", other="another sweep.name=..."):
        with pytest.raises(ValueError, match=f"Process {os.getpid()} on .* is sweeping in .* another sweep.name"):
            with lock_or_refuse(tmp_path, work="sweeping", other="another sweep.name=..."):
                pytest.fail("two hold it")
    with lock_or_refuse(tmp_path):
        pass


def _append(path, number):
    for _ in range(20):
        with sole_maker(path):
            before = path.read_text() if path.exists() else ""
            time.sleep(0.0005)
            path.write_text(before + str(number))


@pytest.mark.parametrize("kind", [threading.Thread, multiprocessing.get_context("fork").Process])
def test_makers_of_one_file_follow_each_other_and_leave_no_lock(tmp_path, kind):
    path = tmp_path / "deep" / "a.txt"
    workers = [kind(target=_append, args=(path, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(path.read_text()) == sorted("0123" * 20)
    assert list(path.parent.iterdir()) == [path]
