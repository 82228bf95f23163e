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
from backends.schema import ToolCall


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
    """A call whose pieces come: the engine's id, its name, its arguments so far, and its index for the client.

    Without a name the client has not heard of it. `repeated`: the name that it has if arguments come, as the engine
    said that name once more after a complete call: whether it names that call again or another one, they will tell.
    """

    id: str
    repeated: str = ""
    name: str = ""
    arguments: list[str] = []
    place: int = 0

    @property
    def complete(self) -> bool:
        """Whether the arguments are a whole JSON object: with more they would be none."""
        text = "".join(self.arguments)
        try:
            return text.rstrip().endswith("}") and isinstance(msgspec.json.decode(text), dict)
        except problem.UNREADABLE:
            return False

    @property
    def empty(self) -> bool:
        """Whether there are no arguments yet."""
        return not any(self.arguments)


class CallPieces:
    """Reads the pieces of one choice's tool calls. `count` is how many calls the client has heard of."""

    def __init__(self, call: Call, index: int) -> None:
        self.count = 0
        self._call = call
        self._index = index
        self._calls: list[OpenCall] = []
        self._at: dict[int | None, OpenCall] = {}  # by the engine's index: the last call that had it

    def take(self, tools: list[ToolCall]) -> list[ToolCall] | None:
        """Return the pieces of one chunk as the client gets them; None if there are none."""
        pieces = []
        for tool in tools:
            current = self._at.get(tool.index)
            if current is None or tool.id or tool.function.name or not current.name:
                current = self._call_of(tool)
            if piece := self._piece(tool, current):
                pieces.append(piece)
        return pieces or None

    def _call_of(self, tool: ToolCall) -> OpenCall:
        """Return the call that a piece belongs to, which may begin with it."""
        current = self._continued(tool)
        if current is None or _begins(tool, current):
            again = current is not None and not tool.id and tool.function.name == current.name
            current = OpenCall(tool.id or "", (tool.function.name or "") if again else "")
            self._calls.append(current)
        if tool.index is not None:
            self._at[tool.index] = current
        return current

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
        function = tool.function
        name, function.name = function.name, None
        function.arguments = function.arguments or ""
        current.arguments.append(function.arguments)
        tool.id = tool.type = None
        if not current.name:
            if current.repeated and (not name or name == current.repeated):
                name = "" if current.empty else current.repeated
            if not name:
                return None
            current.name, current.place, function.name = name, self.count, name
            self.count += 1
            function.arguments = "".join(current.arguments)
            identify(tool, self._call, self._index, current.place)
        tool.index = current.place
        return tool


def _begins(tool: ToolCall, current: OpenCall) -> bool:
    """Whether a piece begins another call, although its index, if it has one, is that of the current one."""
    name, arguments = tool.function.name, tool.function.arguments
    if not current.name:
        return False
    if not name:  # an id without a name, and no more arguments: the name follows
        return bool(tool.id and tool.id != current.id and not arguments and current.complete)
    if name != current.name:
        return True
    if tool.id and tool.id == current.id:  # the name is repeated, or the same function is called once more
        return bool(arguments and arguments.strip()) and current.complete
    return current.complete or bool(tool.id and current.empty)
