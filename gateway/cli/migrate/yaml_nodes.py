"""YAML as nodes that know their line: anchors and merges followed, templates left as they are.

The nodes are PyYAML's own (`yaml.compose_all`); no type is guessed from a scalar, as YAML 1.1 and 1.2 guess differently
and an environment variable is text in any case.
"""

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import yaml  # type: ignore[import-untyped]
from yaml.constructor import SafeConstructor  # type: ignore[import-untyped]

from gateway.cli.migrate.launch import CannotRead, Place

YamlNode: TypeAlias = Any  # PyYAML's Node: the library has no types

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONTROL = re.compile(
    r"^[ \t]*(?:- )?\{\{-?\s*(?:if|else|end|range|with|define|include|template|toYaml|/\*).*$", re.MULTILINE
)
_TEMPLATE = re.compile(r"\{\{.*?\}\}")
_NULL = "tag:yaml.org,2002:null"
_OF_YAML = ("tag:yaml.org,2002:", "!!")
_KEPT = re.compile("\ue000(\\d+)\ue001")


class Documents:
    """The documents of a file. Raises CannotRead, with the place, if it is no YAML, or a template not yet rendered."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self._templates: list[str] = []
        kept = _TEMPLATE.sub(self._keep, text)
        try:
            self.nodes = [node for node in yaml.compose_all(kept, _LOADER) if node is not None]
        except yaml.YAMLError as error:
            if control := _CONTROL.search(text):
                line, said = text.count("\n", 0, control.start()) + 1, control[0].strip()
                raise CannotRead(f"{file}:{line}: a Helm template ({said}); render it first: helm template") from error
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            what = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise CannotRead(f"{file}:{line}: not valid YAML: {what}") from error

    def _keep(self, match: re.Match[str]) -> str:
        self._templates.append(match[0])
        return f"\ue000{len(self._templates) - 1}\ue001"

    def place(self, node: YamlNode) -> Place:
        """Return where a node begins."""
        return Place(self.file, node.start_mark.line + 1)

    def is_mapping(self, node: YamlNode | None) -> bool:
        """Whether a node is a mapping."""
        return isinstance(node, yaml.MappingNode)

    def is_sequence(self, node: YamlNode | None) -> bool:
        """Whether a node is a list."""
        return isinstance(node, yaml.SequenceNode)

    def mapping(self, node: YamlNode | None) -> dict[str, YamlNode]:
        """Return a mapping's values by their keys, merged ones (`<<`) included; nothing for any other node."""
        if not isinstance(node, yaml.MappingNode):
            return {}
        try:
            SafeConstructor().flatten_mapping(node)
        except yaml.YAMLError as error:
            raise CannotRead(f"{self.place(node)}: expected a mapping behind <<") from error
        return {self.text(key): value for key, value in node.value}

    def sequence(self, node: YamlNode | None) -> list[YamlNode]:
        """Return the items of a list; nothing for any other node."""
        return list(node.value) if isinstance(node, yaml.SequenceNode) else []

    def text(self, node: YamlNode | None) -> str:
        """Return a scalar as it is written, without its quotes; null and other nodes are empty.

        What CloudFormation's short forms stand for (`!Ref NAME`) is not known here: it is a variable, `${NAME}`.
        """
        if node is not None and not node.tag.startswith(_OF_YAML) and node.tag != "!Sub":
            parts = [self.text(one) for one in self.sequence(node)] or [str(node.value)]
            return f"${{{'.'.join(parts)}}}"
        if not isinstance(node, yaml.ScalarNode) or node.tag == _NULL:
            return ""
        return self.restored(node.value)

    def restored(self, text: str) -> str:
        """Return a text with its templates as they were."""
        return _KEPT.sub(lambda match: self._templates[int(match[1])], text)

    def at(self, node: YamlNode | None, *path: str) -> YamlNode | None:
        """Return the node at the end of a path of keys, or None."""
        for key in path:
            node = self.mapping(node).get(key)
        return node

    def plain(self, node: YamlNode | None) -> Any:
        """Return a node as Python data, to be written again: only what all YAML versions agree on is not text."""
        if isinstance(node, yaml.MappingNode):
            return {key: self.plain(value) for key, value in self.mapping(node).items()}
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item) for item in node.value]
        return self._scalar(node) if isinstance(node, yaml.ScalarNode) else None

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = self.text(node)
        if node.style:  # it is quoted, or a block
            return text
        if node.tag == _NULL:
            return None
        if text in ("true", "false"):
            return text == "true"
        if re.fullmatch(r"-?(0|[1-9]\d*)", text):
            return int(text)
        return float(text) if re.fullmatch(r"-?\d+\.\d+", text) else text


def yaml_text(documents: Sequence[Any]) -> str:
    """Return documents as YAML."""
    more = len(documents) > 1
    text = yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=1000, explicit_start=more)
    return str(text)
