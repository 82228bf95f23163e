"""Who asks, by the key that came with the request, and whether that key is good for what is asked.

The key goes no further than this: what an engine is sent is made anew, with the engine's own key (see `backends`).
"""

from gateway.access.keys import Keyring
from gateway.access.principal import ANYBODY, Principal
from gateway.http.context import RequestContext
from gateway.http.errors import Forbidden, Unauthorized

MISSING = "You didn't provide an API key."
READ_FROM = "A key is read from the headers Authorization (Authorization: Bearer YOUR_KEY), x-api-key and api-key."


def authenticate(context: RequestContext, keyring: Keyring | None, now: float) -> Principal:
    """Return who asks, at a time in Unix seconds; anybody if there are no keys. One good key is enough.

    Raises Unauthorized if there is no key with the request (RFC 6750, 3.1: then no error is named), or no good one.
    """
    if keyring is None:
        return ANYBODY
    refusals: list[Unauthorized] = []
    for presented in _presented(context.headers):
        try:
            return keyring.check(presented, now)
        except Unauthorized as error:
            refusals.append(error)
    if not refusals:
        raise Unauthorized(f"{MISSING} {READ_FROM}", headers={"www-authenticate": "Bearer"})
    raise Unauthorized(f"{refusals[0].message} {READ_FROM}", headers=refusals[0].headers)


def _presented(headers: dict[bytes, bytes]) -> list[str]:
    """Return the keys: as OpenAI's clients send one, as Anthropic's do, as Azure's do."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    found = [
        token.strip() if scheme.lower() == b"bearer" else b"",
        headers.get(b"x-api-key", b"").strip(),
        headers.get(b"api-key", b"").strip(),
    ]
    return [key.decode("latin-1") for key in found if key]


def allow(principal: Principal, model: str, words: str = "") -> None:
    """Raise Forbidden if the key is not good for a model, by the gateway's own name for it (not an alias).

    `words` are what the client is told of the model, where that name would be news to it.
    """
    if not principal.may_ask(model):
        told = words or f"the model '{model}'"
        raise Forbidden(f"This API key is not good for {told}.", "model")


def require_admin(principal: Principal) -> None:
    """Raise Forbidden if the key is not one of an administrator."""
    if not principal.admin:
        raise Forbidden("This needs a key of an administrator (pointsman keys create --admin).")
