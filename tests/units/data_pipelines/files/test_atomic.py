"""Files and folders that are there whole or not at all."""

import errno
import multiprocessing
import os
import resource
import threading
import time
from contextlib import suppress

import pytest

from data_pipelines.files.atomic import (
    atomic_file,
    atomic_folder,
    atomic_text,
    bytes_text,
    could_not_write,
    lock_or_refuse,
    remove_left,
    remove_unfinished,
    sole_maker,
    unfinished_folder,
    write_file,
    write_text,
)


def test_a_file_that_fails_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with suppress(ZeroDivisionError), atomic_file(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("durable", [False, True])
def test_writers_of_one_file_do_not_disturb_each_other(tmp_path, durable):
    path, ready = tmp_path / "a.txt", threading.Barrier(4)

    def write(number):
        with atomic_file(path, durable=durable) as unfinished:
            unfinished.write_text(10000 * str(number))
            ready.wait(10.0)
            assert unfinished.read_text() == 10000 * str(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(path.read_text())) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("resumable", [False, True])
def test_a_folder_is_renamed_when_it_is_complete(tmp_path, resumable):
    path = tmp_path / "deep" / "a.zarr"
    unfinished_folder(path).mkdir(parents=True)
    (unfinished_folder(path) / "left").touch()
    with suppress(ZeroDivisionError), atomic_folder(path, resumable=resumable) as folder:
        assert (folder / "left").exists() == resumable
        raise ZeroDivisionError
    assert not path.exists()
    assert unfinished_folder(path).exists() == resumable
    with atomic_folder(path, resumable=resumable) as folder:
        folder.mkdir(exist_ok=True)
        (folder / "b").touch()
    assert {file.name for file in path.iterdir()} == ({"left", "b"} if resumable else {"b"})
    assert not unfinished_folder(path).exists()


def test_what_killed_writers_left_is_removed(tmp_path):
    (tmp_path / "a").mkdir()
    with atomic_file(tmp_path / "a" / "b.txt") as unfinished:
        unfinished.touch()
        left = unfinished.with_name(unfinished.name.replace("b.txt", "c.txt"))
        left.touch()
    remove_unfinished(tmp_path, within=False)
    assert left.exists()
    remove_unfinished(tmp_path)
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_finished_folder_has_no_temporary_files(tmp_path):
    with atomic_folder(tmp_path / "a.zarr", resumable=True) as unfinished:
        (unfinished / "c").mkdir(parents=True)
        for name in ("0", "0.1f2e.partial", ".1.partial"):
            (unfinished / "c" / name).touch()
    assert [file.name for file in (tmp_path / "a.zarr" / "c").iterdir()] == ["0"]


def test_a_file_that_cannot_be_written_is_named_with_need_and_room(tmp_path):
    path = tmp_path / "a.bin"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=r"a\.bin \(File too large; it needs 3 kB, .* are free.*1 kB \(ulimit -f\)"):
            write_file(path, bytes(2000), bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
    write_file(path, bytes(2000), bytes(1000))
    assert path.stat().st_size == 3000


@pytest.mark.parametrize(("number", "text"), [(12, "12 bytes"), (1500, "1.5 kB"), (2e9, "2 GB"), (3e13, "30 TB")])
def test_sizes_in_words(number, text):
    assert bytes_text(number) == text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EROFS])
def test_a_folder_on_a_full_disk_is_named_with_the_room(tmp_path, number):
    path = tmp_path / "a.zarr"
    told = r"Could not write .*a\.zarr \(.* are free there\); "
    with pytest.raises(OSError, match=told) as caught, atomic_folder(path):
        raise OSError(number, os.strerror(number))
    assert caught.value.errno == number
    with pytest.raises(OSError, match="elsewhere"), atomic_folder(path):
        raise could_not_write(tmp_path / "elsewhere", caught.value.__cause__)
    with pytest.raises(OSError, match=r"^gone$"), atomic_folder(path):
        raise OSError("gone")


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


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path):
    path, other = tmp_path / "a.nc", tmp_path / "b.nc"
    child = os.fork()
    if not child:
        with atomic_file(path) as unfinished:
            unfinished.touch()
            with atomic_file(other) as another:
                another.touch()
                os._exit(0)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 2
    with atomic_file(path) as unfinished:
        unfinished.touch()
        remove_left(path)
        assert unfinished.exists()
        assert sum(one.name.startswith(".a.nc.") for one in tmp_path.iterdir()) == 1
    assert {one.name.partition(".partial")[0][:5] for one in tmp_path.iterdir()} == {"a.nc", ".b.nc"}


@pytest.mark.parametrize("waited", [True, False], ids=["gone", "zombie"])
def test_writing_a_text_again_clears_what_a_killed_writer_left(tmp_path, waited):
    path = tmp_path / "scores.csv"
    child = os.fork()
    if not child:
        with atomic_text(path):
            os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    if waited:
        os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_text(path) as file:
        file.write("x")
    assert list(tmp_path.iterdir()) == [path]
    write_text(path, "y")
    assert path.read_text() == "y"
    if not waited:
        os.waitpid(child, 0)
