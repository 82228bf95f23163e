"""Tool calls as clients take them, of what engines send (OpenAI API reference, "Function calling").

A client gets each call's id, type and name on its first piece alone, and an index of the call's own on every piece.
Engines send ids that are empty, new on every piece, or the same for two calls; the same index for two calls, or none;
and names on every piece. What begins a new call is found out here. The ids are the gateway's own. Pure.
"""

import hashlib

import msgspec
from msgspec import Struct

from backends import problem
from backends.base import Call
from backends.schema import CalledFunction, ToolCall


def tool_id(call: Call, index: int, place: int) -> str:
    """Return `call_` and 24 hexadecimal digits, a hash of the answer's id, the choice's index and the call's place."""
    return "call_" + hashlib.blake2b(f"{call.id}/{index}/{place}".encode(), digest_size=12).hexdigest()


def identify(tool: ToolCall, call: Call, index: int, place: int) -> None:
    """Set a tool call's id and type; the id is the same for a stream and a complete answer."""
    tool.id = tool_id(call, index, place)
    tool.type = "function"


def complete_calls(tools: list[ToolCall], call: Call, index: int) -> list[ToolCall] | None:
    """Return the calls of a complete message; None if there are none. A call without a name is none."""
    named = [tool for tool in tools if tool.function.name]
    for place, tool in enumerate(named):
        identify(tool, call, index, place)
        tool.index = None
        if tool.function.arguments is None:
            tool.function.arguments = "{}"
    return named or None


class OpenCall(Struct):
    """A call whose pieces come: its index for the client, the engine's id, its name, and its arguments so far."""

    place: int
    id: str
    name: str = ""
    arguments: list[str] = []

    @property
    def complete(self) -> bool:
        """Whether the arguments are a whole JSON object: with more they would be none."""
        if not self.arguments or not self.arguments[-1].rstrip().endswith("}"):
            return False
        try:
            return isinstance(msgspec.json.decode("".join(self.arguments)), dict)
        except problem.UNREADABLE:
            return False


class CallPieces:
    """Reads the pieces of one choice's tool calls."""

    def __init__(self, call: Call, index: int) -> None:
        self._call = call
        self._index = index
        self._calls: list[OpenCall] = []
        self._at: dict[int, OpenCall] = {}  # by the engine's index: the last call that had it

    def __bool__(self) -> bool:
        """Whether there is a call that the client has heard of."""
        return any(one.name for one in self._calls)

    def take(self, tools: list[ToolCall]) -> list[ToolCall] | None:
        """Return the pieces of one chunk as the client gets them; None if there are none."""
        return [piece for tool in tools if (piece := self._take(tool)) is not None] or None

    def _take(self, tool: ToolCall) -> ToolCall | None:
        current = self._continued(tool)
        if current is None or _begins(tool, current):
            current = OpenCall(len(self._calls), tool.id or "")
            self._calls.append(current)
        if tool.index is not None:
            self._at[tool.index] = current
        return self._piece(tool, current)

    def _continued(self, tool: ToolCall) -> OpenCall | None:
        """Return the call that a piece may go on with: its index's, else its id's, else the last one."""
        if tool.index in self._at:
            return self._at[tool.index]
        known = [one for one in self._calls if tool.id and one.id == tool.id]
        if tool.index is not None and (tool.function.name or (tool.id and not known)):
            return None
        calls = known or self._calls
        return calls[-1] if calls else None

    def _piece(self, tool: ToolCall, current: OpenCall) -> ToolCall | None:
        """Return what the client gets of a piece: nothing before the call has its name."""
        if tool.function.arguments:
            current.arguments.append(tool.function.arguments)
        if current.name:
            return ToolCall(index=current.place, function=CalledFunction(arguments=tool.function.arguments or ""))
        if not tool.function.name:
            return None
        current.name = tool.function.name
        function = CalledFunction(name=current.name, arguments="".join(current.arguments))
        piece = ToolCall(index=current.place, function=function)
        identify(piece, self._call, self._index, current.place)
        return piece


def _begins(tool: ToolCall, current: OpenCall) -> bool:
    """Whether a piece begins another call, although its index, if it has one, is that of the current one."""
    name, arguments = tool.function.name, tool.function.arguments
    if not name or not current.name:  # an id without a name, and no more arguments: the name follows
        return bool(tool.id and tool.id != current.id and not arguments and current.complete)
    if name != current.name:
        return True
    if not tool.id or tool.id == current.id:  # the name is repeated, or the same function is called once more
        return current.complete and bool(arguments and arguments.strip() if tool.id else arguments is not None)
    return current.complete or not current.arguments
