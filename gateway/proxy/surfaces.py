"""Which step applies to which surface.

The steps of `pipeline` are the same for all: find the model, check the key, tier and pin, plan, admit, dispatch with
retries and failover, send, settle. Those below differ. NOT_YET: it would make sense there, and nobody has done it.
"""

from enum import Enum, auto

from msgspec import Struct


class Applies(Enum):
    """Whether a step applies to a surface."""

    YES = auto()
    NO = auto()
    NOT_YET = auto()


class Surface(Struct, frozen=True):
    """One API that clients speak, or what goes on beside their requests.

    `cache`: answers are kept and played again; `coalesce`: identical requests in flight share one answer; `hedge`: a
    second engine is asked where the first is slow to begin; `usage`: tokens are counted, logged and debited.
    """

    cache: Applies
    coalesce: Applies
    hedge: Applies
    usage: Applies


OPENAI = Surface(cache=Applies.YES, coalesce=Applies.YES, hedge=Applies.YES, usage=Applies.YES)
PASSTHROUGH = Surface(cache=Applies.NO, coalesce=Applies.NO, hedge=Applies.NOT_YET, usage=Applies.NOT_YET)
TGI = Surface(cache=Applies.NOT_YET, coalesce=Applies.NOT_YET, hedge=Applies.NOT_YET, usage=Applies.YES)
SUB_REQUEST = Surface(cache=Applies.NO, coalesce=Applies.NO, hedge=Applies.NO, usage=Applies.NO)
