"""Paths that are passed on to an engine whose dialect has them (vLLM): the model's name is mapped, little else.

paths         which paths there are, and how their clients are spoken to
bodies        what is read of a request's body, and how it is written anew for an engine
handlers      the handlers of the paths
work          the work of one request: which deployments are asked, and how
stored        the paths of one response, by its id
answers       an engine's answer, whole or as a stream, on its way to the client
frames        an event stream cut into whole events
events        what is read of an event: its usage, the end, an error
names         the client's name for the model, and for a response, in what an engine says
response_ids  ids of responses that lead back to their engine
counts        the tokens that an answer says were worked
failures      what an engine's error means
anthropic     Anthropic's errors and events for clients of `/v1/messages`
responses     the events of OpenAI's Responses for clients of `/v1/responses`
"""

from gateway.api.passthrough.anthropic import unrouted_body
from gateway.api.passthrough.handlers import form_path, json_path, response_path
from gateway.api.passthrough.paths import DIALECTS, FORM_PATHS, JSON_PATHS, STORED_PATH
from gateway.api.passthrough.responses import ResponsesClient
from gateway.api.passthrough.stored import StoredResponse
from gateway.api.passthrough.work import Passthrough

__all__ = [
    "DIALECTS",
    "FORM_PATHS",
    "JSON_PATHS",
    "STORED_PATH",
    "Passthrough",
    "ResponsesClient",
    "StoredResponse",
    "form_path",
    "json_path",
    "response_path",
    "unrouted_body",
]
