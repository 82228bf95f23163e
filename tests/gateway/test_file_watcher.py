"""A watched file: every way in which it can change is seen, once; what cannot be taken changes nothing."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.server.file_watcher import FileWatcher
from tests.support.processes import eventually, replace


class Taken(list[str]):
    """Texts that were taken; one with a fault in it is not."""

    def take(self, text: str) -> None:
        if "fault" in text:
            raise ValueError(text.strip())
        self.append(text)


@pytest.fixture
def taken() -> Taken:
    return Taken()


def in_place(path: Path) -> None:
    path.write_text("second")


def at_once(path: Path) -> None:
    replace(path, "second")


def to_the_same_length(path: Path) -> None:
    path.write_text("secon")


def with_its_old_times(path: Path) -> None:
    before = path.stat()
    replace(path, "secon")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [in_place, at_once, to_the_same_length, with_its_old_times])
def test_each_change_is_taken_once(tmp_path: Path, taken: Taken, change: Callable[[Path], None]) -> None:
    path = tmp_path / "file"
    path.write_text("first")
    watcher = FileWatcher(path, taken.take)
    for _ in range(2):
        watcher.look()
    assert taken == ["first"]
    change(path)
    for _ in range(2):
        watcher.look()
    assert taken == ["first", path.read_text()]


def test_a_link_that_is_turned_as_a_config_maps_is_a_change(tmp_path: Path, taken: Taken) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "..data").symlink_to("first")
    (tmp_path / "file").symlink_to("..data/file")
    watcher = FileWatcher(tmp_path / "file", taken.take)
    watcher.look()
    (tmp_path / "..new").symlink_to("second")
    (tmp_path / "..new").replace(tmp_path / "..data")
    watcher.look()
    assert taken == ["first", "second"]


def test_a_file_that_goes_is_said_once_and_taken_when_it_returns(
    tmp_path: Path, taken: Taken, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_text("first")
    watcher = FileWatcher(path, taken.take)
    watcher.look()
    path.unlink()
    for _ in range(3):
        watcher.look()
    assert taken == ["first"]
    assert caplog.text.count("No such file") == 1
    path.write_text("first")
    watcher.look()
    assert taken == ["first", "first"]


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_what_cannot_be_read_is_said_once_and_changes_nothing(
    tmp_path: Path, taken: Taken, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    path = tmp_path / "file"
    path.write_text("first")
    watcher = FileWatcher(path, taken.take)
    watcher.look()
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    for _ in range(3):
        watcher.look()
    assert taken == ["first"]
    assert caplog.text.count("stays in force") == 1
    assert str(path) in caplog.text


def test_faults_are_said_a_line_each_and_once_for_each_change(
    tmp_path: Path, taken: Taken, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_text("first")
    watcher = FileWatcher(path, taken.take)
    watcher.look()
    with caplog.at_level(logging.ERROR, "pointsman"):
        for text in ("fault one\nfault two", "fault three"):
            path.write_text(text)
            for _ in range(2):
                watcher.look()
    assert [record.message for record in caplog.records] == [
        f"{path}: fault one",
        f"{path}: fault two",
        f"{path}: not loaded; what was read before stays in force",
        f"{path}: fault three",
        f"{path}: not loaded; what was read before stays in force",
    ]
    path.write_text("second")
    watcher.look()
    assert taken == ["first", "second"]


async def test_it_is_read_at_the_start_and_then_looked_at_for_ever_faults_or_not(tmp_path: Path, taken: Taken) -> None:
    path = tmp_path / "file"
    path.write_text("fault")
    watching = asyncio.ensure_future(FileWatcher(path, taken.take).run())
    try:
        await asyncio.sleep(0)
        path.write_text("second")
        await eventually(lambda: taken == ["second"], 3)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
