"""`pointsman keys`: making, listing and revoking keys."""

import json
import secrets
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.__main__ import main
from gateway.access.keys import Keyring
from gateway.access.keys.file import load
from gateway.access.keys.table import read, write
from gateway.access.keys.text import digest, fresh, id_of
from gateway.access.principal import Principal
from gateway.cli import keys as commands
from gateway.cli.exit_status import CommandFailed
from gateway.http.errors import Unauthorized
from gateway.server.file_watcher import FileWatcher
from tests.support.keys import FAULTY, GOOD, NOW, PLAIN, SECRET, at, changed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file with one key in it."""
    made = tmp_path / "keys.toml"
    made.write_text(write([PLAIN]))
    return made


def keys(*words: str) -> Result:
    return CliRunner().invoke(main, ["keys", *words], catch_exceptions=False)


def test_a_key_that_was_made_is_alone_on_stdout_and_good(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    words = ["--models", "a, b*", "--admin", "--tenant", "t", "--tier", "flex", "--max-in-flight", "3"]
    limits = ["--requests-per-minute", "1", "--tokens-per-minute", "2"]
    made = keys("create", "--name", "alice", "--file", str(file), *words, *limits)
    assert made.exit_code == 0
    text = made.stdout.removesuffix("\n")
    assert "\n" not in text
    assert Keyring(file.read_text()).check(text, NOW) == Principal(
        id=id_of(text),
        tenant="t",
        models=("a", "b*"),
        admin=True,
        tier="flex",
        requests_per_minute=1,
        tokens_per_minute=2,
        max_in_flight=3,
    )
    assert id_of(text) in made.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    secret = text.split("-", 3)[3]
    assert secret not in made.stderr + file.read_text()


def test_keys_are_256_random_bits_and_an_id() -> None:
    made = {fresh(secrets.token_bytes) for _ in range(50)}
    assert len({id_of(text) for text in made}) == 50
    for text in made:
        assert len(text.split("-", 3)[3]) == 43
        assert read(write([changed(id=id_of(text))]))
    assert fresh(bytes) == f"sk-pm-aaaaaaaa-{'A' * 43}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", at(NOW + 30 * 86400)),
        ("90m", at(NOW + 5400)),
        ("2027-06-01", datetime(2027, 6, 1, tzinfo=UTC)),
        ("2027-06-01T12:00:00+02:00", datetime(2027, 6, 1, 10, tzinfo=UTC)),
    ],
)
def test_a_key_expires_after_a_time_or_at_a_date(text: str, expected: datetime) -> None:
    assert commands.expiry(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "soon", "30", "0d", "-1d", "2027-13-01", "2026-01-01", "99999999999d"])
def test_an_expiry_that_is_none_or_is_over_is_wrong_usage(text: str) -> None:
    with pytest.raises(CommandFailed, match="--expires") as failed:
        commands.expiry(text, NOW)
    assert failed.value.exit_code == 2


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["create"], 2, "--name"),
        (["create", "--name", ""], 2, "--name: expected"),
        (["create", "--name", "x", "--models", "a,,b"], 2, "--models[1]: expected"),
        (["create", "--name", "x", "--tier", "gold"], 2, "'priority', 'flex'"),
        (["create", "--name", "x", "--max-in-flight", "-1"], 2, "--max-in-flight"),
        (["create", "--name", "x", "--expires", "soon"], 2, "30d"),
        (["create", "--name", "x", "--config", "none.toml"], 2, "none.toml"),
        (["create", "--name", "x", "--file", "none/keys.toml"], 1, "none/keys.toml"),
        (["list", "--file", "none.toml"], 1, "pointsman keys create"),
        (["revoke", "x", "--file", "none.toml"], 1, "pointsman keys create"),
        (["revoke"], 2, "ID|NAME"),
    ],
)
def test_what_goes_wrong_is_said_on_stderr(
    words: list[str], status: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = keys(*words)
    assert done.exit_code == status
    assert said in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_the_faults_of_a_broken_file_are_all_said_and_the_file_is_left_alone(path: Path) -> None:
    path.write_text(FAULTY)
    for words in (["create", "--name", "x"], ["list"], ["revoke", "bob"]):
        done = keys(*words, "--file", str(path))
        assert done.exit_code == 1
        assert len(done.stderr.splitlines()) == 13
        assert f"pointsman: {path}: keys[0].hash: " in done.stderr
        assert SECRET not in done.output
    assert path.read_text() == FAULTY


def test_the_configuration_says_where_the_keys_are_relative_to_itself(tmp_path: Path) -> None:
    settings = tmp_path / "pointsman.toml"
    settings.write_text('[auth]\nkeys_file = "secret.toml"\n')
    assert keys("create", "--name", "alice", "--config", str(settings)).exit_code == 0
    assert [key.name for key in load(tmp_path / "secret.toml")] == ["alice"]
    other = tmp_path / "other.toml"
    assert keys("create", "--name", "bob", "--config", str(settings), "--file", str(other)).exit_code == 0
    assert [key.name for key in load(other)] == ["bob"]


@pytest.mark.parametrize("text", ["", "[auth]\nkeys_fil = 'x'\n", "[auth"])
def test_a_configuration_that_does_not_say_where_the_keys_are_is_wrong_usage(text: str, tmp_path: Path) -> None:
    settings = tmp_path / "pointsman.toml"
    settings.write_text(text)
    done = keys("list", "--config", str(settings))
    assert done.exit_code == 2
    assert str(settings) in done.stderr


def test_without_being_told_the_file_is_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert keys("create", "--name", "alice").exit_code == 0
    assert [key.name for key in load(tmp_path / "keys.toml")] == ["alice"]


def test_two_keys_in_force_do_not_share_a_name(path: Path) -> None:
    done = keys("create", "--name", "alice", "--file", str(path))
    assert done.exit_code == 1
    assert done.stdout == ""
    assert load(path) == [PLAIN]
    keys("revoke", "alice", "--file", str(path))
    assert keys("create", "--name", "alice", "--file", str(path)).exit_code == 0


@pytest.mark.parametrize("who", ["alice", "abcd2345"])
def test_a_key_is_revoked_by_its_name_or_id_and_once_is_for_ever(path: Path, who: str) -> None:
    words = ("revoke", who, "--file", str(path))
    assert keys(*words).exit_code == 0
    (first,) = load(path)
    assert first.revoked is not None
    assert keys(*words).exit_code == 0
    assert load(path) == [first]


def test_a_running_gateway_sees_that_a_key_was_revoked(path: Path) -> None:
    held = Keyring(path.read_text())
    watched = FileWatcher(path, held.take)
    keys("revoke", "alice", "--file", str(path))
    watched.look()
    with pytest.raises(Unauthorized, match="was revoked"):
        held.check(GOOD, NOW)


def test_a_name_means_the_key_that_is_in_force(path: Path) -> None:
    path.write_text(write([changed(revoked=at(1)), changed(id="second22")]))
    keys("revoke", "alice", "--file", str(path))
    old, new = load(path)
    assert old.revoked == at(1)
    assert new.revoked is not None


def test_who_revokes_an_unknown_key_is_told_which_there_are(path: Path) -> None:
    done = keys("revoke", "nobody", "--file", str(path))
    assert done.exit_code == 1
    assert "abcd2345  alice  (in force)" in done.stderr
    assert load(path) == [PLAIN]


LISTED = [
    changed(models=["a*"], admin=True, max_in_flight=3),
    changed(id="second22", name="[bold]bob", expires=at(1)),
    changed(id="third222", name="carol", revoked=at(1)),
]


def test_the_list_says_what_each_key_is_good_for_and_no_hash(path: Path) -> None:
    path.write_text(write(LISTED))
    done = keys("list", "--file", str(path))
    _, first, second, third = done.stdout.splitlines()
    assert " ".join(first.split()) == "abcd2345 alice in force abcd2345 a* priority, admin 3 in flight never"
    assert "[bold]bob" in second
    assert "expired" in second
    assert "revoked" in third
    assert digest(GOOD).hex()[:12] not in done.output


def test_the_list_is_to_be_had_as_json(path: Path) -> None:
    path.write_text(write(LISTED))
    done = keys("list", "--json", "--file", str(path))
    found = json.loads(done.stdout)["keys"]
    assert [key["state"] for key in found] == ["in force", "expired", "revoked"]
    assert found[0] == {
        "id": "abcd2345",
        "name": "alice",
        "state": "in force",
        "tenant": "abcd2345",
        "models": ["a*"],
        "admin": True,
        "tier": "priority",
        "requests_per_minute": 0,
        "tokens_per_minute": 0,
        "max_in_flight": 3,
        "created": None,
        "expires": None,
        "revoked": None,
        "no_shadow": False,
    }


def test_keys_made_at_once_by_several_processes_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    command = [sys.executable, "-m", "gateway", "keys", "create", "--file", str(file), "--name"]
    running = [subprocess.Popen([*command, f"n{i}"], stdout=subprocess.PIPE, text=True) for i in range(4)]
    made = [process.communicate(timeout=50)[0].strip() for process in running]
    held = Keyring(file.read_text())
    assert {held.check(text, NOW).id for text in made} == {id_of(text) for text in made}
    assert {key.name for key in load(file)} == {"n0", "n1", "n2", "n3"}


@pytest.mark.parametrize("words", [[], ["create"], ["list"], ["revoke"]])
def test_each_command_explains_itself(words: list[str]) -> None:
    done = keys(*words, "--help")
    assert done.exit_code == 0
    assert "Usage: " in done.stdout
