"""Ids of Responses that lead back to their engine: from any worker and gateway, after a restart, for their tenant.

An engine keeps its responses to itself, so `previous_response_id` and the paths of a response have to reach the engine
that made it. An id as clients see it is `resp_pm_` and, in base64, a digest and the engine's own id. The digest is of
the tenant, the engine's URL and its own id: whichever deployment gives the same digest made the response. Nothing is
kept, and gateways that know an engine by the same URL understand each other's ids.

What binds an id to its tenant: the digest is keyed by the gateway's key for the engine (`api_key_env`), which no client
knows. Where an engine has no key there is no secret to key it by, and the digest only tells tenants apart: whoever
holds another tenant's id, knows that tenant's name and reads this file could make an id of his own from it. The ids are
not to be guessed (the engines draw them at random), so to hold one is what counts. An id of an engine's own, not
encoded, is not bound to any tenant: it is understood only where there are no keys, and so no tenants.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable

from msgspec import json

from gateway.upstream.endpoints import Endpoint

PREFIX = "resp_pm_"
DIGEST = 12  # bytes

_SAFE = re.compile(r"[A-Za-z0-9_:-][A-Za-z0-9._:-]*")  # of what may be a segment of a path


def encode(own: str, endpoint: Endpoint, tenant: str) -> str:
    """Return the id that a tenant is given for a response of an engine's."""
    packed = _digest(own, endpoint, tenant) + own.encode()
    return PREFIX + urlsafe_b64encode(packed).decode().rstrip("=")


def decode(given: str, endpoints: Iterable[Endpoint], tenant: str) -> tuple[Endpoint, str] | None:
    """Return the engine and its own id of an encoded id; None if none of the engines gave it to this tenant."""
    try:
        packed = urlsafe_b64decode(given.removeprefix(PREFIX) + "===")
        digest, own = packed[:DIGEST], packed[DIGEST:].decode()
    except ValueError:
        return None
    for endpoint in endpoints:
        if hmac.compare_digest(digest, _digest(own, endpoint, tenant)):
            return endpoint, own
    return None


def is_encoded(given: str) -> bool:
    """Whether an id is the gateway's, and not an engine's own."""
    return given.startswith(PREFIX)


def is_safe(own: str) -> bool:
    """Whether an id can stand in a path as it is."""
    return _SAFE.fullmatch(own) is not None


def _digest(own: str, endpoint: Endpoint, tenant: str) -> bytes:
    deployment = endpoint.deployment
    bound = json.encode([tenant, deployment.url, deployment.address, own])
    return hmac.digest(deployment.api_key.encode(), bound, hashlib.sha256)[:DIGEST]
