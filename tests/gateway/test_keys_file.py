"""`keys.toml`: read with every fault, written wholly or not at all, and taken in while the gateway runs."""

import logging
import threading
from pathlib import Path

import pytest

from gateway.access.keys import Keyring
from gateway.access.keys.file import editing, load
from gateway.access.keys.table import Key, read, write
from gateway.config import ConfigError
from gateway.http.errors import Unauthorized
from gateway.server.file_watcher import FileWatcher
from tests.support.keys import FAULTY, GOOD, HASH, NOW, PLAIN, SECRET, at, changed


def test_a_file_reads_as_it_was_written() -> None:
    keys = [
        changed(tenant="t", models=["a*"], admin=True, tier="flex", requests_per_minute=1, created=at(NOW)),
        Key(id="second22", name='"quoted"\n[[keys]]', hash=HASH, expires=at(NOW), revoked=at(NOW)),
    ]
    text = write(keys)
    assert read(text) == keys
    assert text.startswith("# API keys, written by `pointsman keys`.")


def test_every_fault_of_a_file_is_said_with_its_place_and_without_what_was_written_there() -> None:
    with pytest.raises(ConfigError) as refused:
        read(FAULTY)
    assert [fault.split(": ")[0] for fault in refused.value.faults] == [
        "kees",
        "keys[0].id",
        "keys[0].name",
        "keys[0].hash",
        "keys[0].admin",
        "keys[1].max_in_fligth",
        "keys[1].id",
        "keys[1].tier",
        "keys[1].requests_per_minute",
        "keys[1].expires",
        "keys[2].models[1]",
        "keys[2].name",
        "keys[3].id",
    ]
    said = str(refused.value)
    assert "did you mean max_in_flight?" in said
    assert "the name bob is taken by keys[1]" in said
    assert "timezone" in said
    assert SECRET not in said


@pytest.mark.parametrize("text", ["[[keys", "keys = 3", 'keys = ["a"]', "[keys]\nid = 1"])
def test_what_is_no_list_of_keys_is_a_fault(text: str) -> None:
    with pytest.raises(ConfigError):
        read(text)


def test_a_name_may_be_given_again_once_its_key_is_revoked() -> None:
    text = write([changed(revoked=at(NOW)), changed(id="second22")])
    assert len(read(text)) == 2


def test_keys_that_could_not_be_read_again_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(write([PLAIN]))
    with pytest.raises(ConfigError, match="the id abcd2345 is taken"), editing(path) as keys:
        keys.append(changed(name="bob"))
    assert load(path) == [PLAIN]


def test_a_change_that_fails_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(write([PLAIN]))
    before = path.stat().st_mtime_ns
    with pytest.raises(ZeroDivisionError), editing(path) as keys:
        keys[0] = 1 / 0  # type: ignore[call-overload]
    assert path.stat().st_mtime_ns == before
    assert {found.name for found in tmp_path.iterdir()} == {"keys.toml", ".keys.toml.lock"}


def test_a_new_file_is_for_its_owner_alone_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    with editing(path) as keys:
        keys.append(PLAIN)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with editing(path) as keys:
        keys.clear()
    assert path.stat().st_mode & 0o777 == 0o640


def test_where_the_file_is_a_link_the_file_behind_it_is_changed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "keys.toml"
    link.symlink_to(tmp_path / "real" / "keys.toml")
    with editing(link) as keys:
        keys.append(PLAIN)
    assert link.is_symlink()
    assert load(tmp_path / "real" / "keys.toml") == [PLAIN]


def test_who_changes_the_file_meanwhile_waits_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"

    def other() -> None:
        with editing(path) as keys:
            keys.append(changed(id="second22", name="bob"))

    with editing(path) as keys:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        keys.append(PLAIN)
    thread.join(10)
    assert [key.name for key in load(path)] == ["alice", "bob"]


def test_a_revoked_key_is_refused_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(write([PLAIN]))
    held = Keyring(path.read_text())
    watched = FileWatcher(path, held.take)
    assert held.check(GOOD, NOW).id == PLAIN.id
    with editing(path) as keys:
        keys[0] = changed(revoked=at(NOW))
    watched.look()
    with pytest.raises(Unauthorized, match="was revoked"):
        held.check(GOOD, NOW)


@pytest.mark.parametrize("text", ["[[keys", FAULTY])
def test_a_broken_file_is_said_in_the_log_and_keeps_the_keys_before(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(write([PLAIN]))
    held = Keyring(path.read_text())
    watched = FileWatcher(path, held.take)
    path.write_text(text)
    with caplog.at_level(logging.ERROR, "pointsman"):
        watched.look()
    assert held.check(GOOD, NOW).id == PLAIN.id
    assert str(path) in caplog.text
    assert SECRET not in caplog.text
