"""The texts of tokens that have been asked of the engines, for as long as the engine is one of the gateway's."""

from weakref import WeakKeyDictionary

from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Candidate

Names = dict[int, str]


class Vocabularies:
    """The texts of tokens by their ids, of each model of each deployment.

    Those of a deployment go with it: where pods come and go, each is a deployment of its own.
    """

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Endpoint, dict[str, Names]] = WeakKeyDictionary()

    def __len__(self) -> int:
        """Return of how many deployments there are any."""
        return len(self._known)

    def of(self, candidate: Candidate) -> Names:
        """Return what is known of a deployment's model, to be added to."""
        return self._known.setdefault(candidate.endpoint, {}).setdefault(candidate.model, {})
