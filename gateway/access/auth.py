"""Who asks, by the key that came with the request, and whether that key is good for what is asked.

The key goes no further than this: what an engine is sent is made anew, with the engine's own key (see `backends`).
"""

from gateway.access.keys import Keyring
from gateway.access.principal import ANYBODY, Principal
from gateway.http.context import RequestContext
from gateway.http.errors import Forbidden, Unauthorized

MISSING = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY)."
)


def authenticate(context: RequestContext, keyring: Keyring | None, now: float) -> Principal:
    """Return who asks, at a time in Unix seconds; anybody if there are no keys.

    Raises Unauthorized if there is no key with the request (RFC 6750, 3.1: then no error is named), or no good one.
    """
    if keyring is None:
        return ANYBODY
    presented = _presented(context.headers)
    if not presented:
        raise Unauthorized(MISSING, headers={"www-authenticate": "Bearer"})
    return keyring.check(presented, now)


def _presented(headers: dict[bytes, bytes]) -> str:
    """Return the key as OpenAI's clients send it, else as Anthropic's do, else nothing."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not token:
        token = headers.get(b"x-api-key", b"")
    return token.strip().decode("latin-1")


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
