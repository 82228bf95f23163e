"""Reads SageMaker's environment of a TGI container: JSON, YAML, or NAME=value lines with HF_MODEL_ID among them.

What the entry point of the image makes of it is in TGI's `sagemaker-entrypoint.sh`.
"""

import re
from collections.abc import Iterable, Iterator

from gateway.cli.migrate.launch import Launch, LaunchSetting, Place
from gateway.cli.migrate.readers.arguments import variable_setting
from gateway.cli.migrate.readers.compose import environment_lines
from gateway.cli.migrate.readers.words import Variables
from gateway.cli.migrate.yaml_nodes import Documents, YamlNode

MODEL = "HF_MODEL_ID"
RENAMED = {
    MODEL: "MODEL_ID",
    "HF_MODEL_REVISION": "REVISION",
    "SM_NUM_GPUS": "NUM_SHARD",
    "HF_MODEL_QUANTIZE": "QUANTIZE",
    "HF_MODEL_TRUST_REMOTE_CODE": "TRUST_REMOTE_CODE",
}
PORT = "8080"  # of the entry point's own command line


def read(documents: Documents, variables: Variables) -> Iterator[Launch]:
    """Yield a launch for each mapping that holds HF_MODEL_ID, wherever it is."""
    for node in documents.nodes:
        yield from _search(documents, node, variables)


def _search(documents: Documents, node: YamlNode, variables: Variables) -> Iterator[Launch]:
    mapping = documents.mapping(node)
    if MODEL in mapping:
        pairs = ((key, variables.fill(documents.text(value)), documents.place(value)) for key, value in mapping.items())
        yield _launch([_setting(*pair) for pair in pairs], documents.place(node))
        return
    for child in (*mapping.values(), *documents.sequence(node)):
        yield from _search(documents, child, variables)


def read_lines(text: str, file: str) -> Launch:
    """Return the launch of a file of NAME=value lines."""
    found = [_setting(one.source, one.value, one.place) for one in environment_lines(text, file)]
    return _launch(found, Place(file, 1))


def is_environment(text: str) -> bool:
    """Whether a text is NAME=value lines of SageMaker's."""
    return re.search(rf"^(?:export )?{MODEL}=", text, re.MULTILINE) is not None


def _setting(source: str, value: str, place: Place) -> LaunchSetting:
    return variable_setting(source, value, place, RENAMED.get(source, ""))


def _launch(settings: Iterable[LaunchSetting], place: Place) -> Launch:
    settings = list(settings)
    names = {one.source for one in settings}
    overridden = {RENAMED[name] for name in names & RENAMED.keys()}
    # The entry point exports its own names over the launcher's.
    kept = [one for one in settings if one.source not in overridden]
    lost = [one for one in settings if one.source in overridden]
    return Launch("tgi", "sagemaker", place, "huggingface-pytorch-tgi-inference", [*lost, *kept], service_port=PORT)
