"""API keys: what a key stands for, and which are refused, and how."""

from typing import Any

import pytest

from gateway.access.keys import Keyring
from gateway.access.keys.table import Key
from gateway.access.principal import Principal
from gateway.http.errors import Unauthorized
from tests.support.keys import GOOD, HASH, NOW, PLAIN, SECRET, at, changed, ring


def test_a_good_key_stands_for_what_its_table_says() -> None:
    limits: dict[str, Any] = {"requests_per_minute": 1, "tokens_per_minute": 2, "max_in_flight": 3}
    key = changed(tenant="t", models=["a", "b*"], admin=True, tier="flex", **limits)
    expected = Principal(id="abcd2345", tenant="t", models=("a", "b*"), admin=True, tier="flex", **limits)
    assert ring(key).check(GOOD, NOW) == expected


def test_without_a_tenant_a_key_is_a_tenant_of_its_own() -> None:
    assert ring(PLAIN).check(GOOD, NOW).tenant == "abcd2345"


def test_a_key_without_limits_is_counted_where_another_one_of_its_tenants_has_some() -> None:
    limited = changed(id="other234", name="bob", tenant="t", tokens_per_minute=1)
    for tenant, counted in (("t", True), ("u", False), ("", False)):
        principal = ring(changed(tenant=tenant), limited).check(GOOD, NOW)
        assert (principal.limited, principal.counted) == (False, counted)


def test_the_principal_is_made_once_and_not_with_each_request() -> None:
    held = ring(PLAIN)
    assert held.check(GOOD, NOW) is held.check(GOOD, NOW + 1)


@pytest.mark.parametrize(
    "presented",
    [
        f"sk-pm-zzzz2345-{SECRET}",
        GOOD[:-1] + "3",
        GOOD[:-1],
        GOOD + "x",
        f"sk-pm-abcd2345-{SECRET.lower()}",
        "sk-pm-abcd2345-",
        "sk-pm-abcd2345",
        "sk-pm-",
        "sk-pm--",
        f"sk-proj-{SECRET}",
        SECRET,
        HASH,
        "",
        "\x00\udcff é",
    ],
)
def test_what_is_not_the_very_key_is_refused_without_telling_a_secret(presented: str) -> None:
    with pytest.raises(Unauthorized) as refused:
        ring(PLAIN).check(presented, NOW)
    error = refused.value
    assert error.message.startswith("Incorrect API key provided: ")
    assert error.headers == {"www-authenticate": 'Bearer error="invalid_token"'}
    assert error.code == "invalid_api_key"
    assert SECRET[:6].lower() not in error.message.lower()


def test_a_refusal_shows_enough_of_a_key_to_know_which_was_sent() -> None:
    with pytest.raises(Unauthorized, match=r"provided: sk-pm-ab\*\*\*\*\. "):
        ring(PLAIN).check(GOOD + "x", NOW)


def test_no_key_is_good_where_there_are_none() -> None:
    with pytest.raises(Unauthorized):
        Keyring("").check(GOOD, NOW)


@pytest.mark.parametrize(
    ("key", "now", "said"),
    [
        (changed(expires=at(NOW)), NOW - 0.001, None),
        (changed(expires=at(NOW)), NOW, "expired at 2027-01-15 08:00:00 UTC"),
        (changed(expires=at(NOW)), NOW + 1, "expired"),
        (changed(revoked=at(NOW - 1)), NOW, "was revoked at 2027-01-15 07:59:59 UTC"),
        (changed(revoked=at(NOW + 900)), NOW, "was revoked"),
        (changed(revoked=at(NOW - 1), expires=at(NOW - 9)), NOW, "was revoked"),
    ],
)
def test_a_key_is_good_until_it_expires_or_is_revoked(key: Key, now: float, said: str | None) -> None:
    if said is None:
        assert ring(key).check(GOOD, now).id == PLAIN.id
        return
    with pytest.raises(Unauthorized, match=said) as refused:
        ring(key).check(GOOD, now)
    assert "sk-pm-abcd2345-****" in refused.value.message
    assert SECRET[:6] not in refused.value.message


def test_only_who_holds_the_key_hears_that_it_expired() -> None:
    with pytest.raises(Unauthorized, match="Incorrect API key"):
        ring(changed(expires=at(1), revoked=at(1))).check(GOOD + "x", NOW)


def test_an_unknown_id_costs_a_comparison_too(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(len(one) + len(other))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    for presented in (f"sk-pm-zzzz2345-{SECRET}", GOOD + "x"):
        with pytest.raises(Unauthorized):
            ring(PLAIN).check(presented, NOW)
    assert compared == [64, 64]
