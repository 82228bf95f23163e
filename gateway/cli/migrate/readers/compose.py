"""Reads the TGI services of a compose file (compose-spec: services, environment, command, interpolation)."""

from collections.abc import Callable, Iterator

from gateway.cli.migrate.launch import CannotRead, Launch, LaunchSetting, Note, Place
from gateway.cli.migrate.readers.arguments import (
    UNKNOWN_PROGRAM,
    flag_settings,
    is_launcher,
    launcher_arguments,
    variable_setting,
)
from gateway.cli.migrate.readers.command_line import device_count
from gateway.cli.migrate.readers.images import is_tgi, not_tgi
from gateway.cli.migrate.readers.words import Variables, Word, command_lines
from gateway.cli.migrate.yaml_nodes import Documents, YamlNode

ReadBeside = Callable[[str], str | None]


def read(
    documents: Documents, node: YamlNode, variables: Variables, read_beside: ReadBeside, skipped: list[Note]
) -> Iterator[Launch]:
    """Yield the launches of the services; an image that is not TGI's is noted in `skipped`.

    `read_beside` returns the text of a file beside the compose file, such as an `env_file`, or None.
    """
    services = documents.at(node, "services")
    if not documents.is_mapping(services):
        raise CannotRead(f"{documents.place(node)}: services: expected a mapping")
    for name, service in documents.mapping(services).items():
        reader = _Service(documents, documents.mapping(service), variables)
        image = variables.fill(documents.text(reader.parts.get("image")))
        if is_tgi(image) or is_launcher(reader.words("command")) or is_launcher(reader.words("entrypoint")):
            yield reader.launch(name, service, image, read_beside)
        else:
            skipped.append(not_tgi(image, documents.place(service)))


class _Service:
    """One service's parts."""

    def __init__(self, documents: Documents, parts: dict[str, YamlNode], variables: Variables) -> None:
        self.documents = documents
        self.parts = parts
        self.variables = variables

    def launch(self, name: str, node: YamlNode, image: str, read_beside: ReadBeside) -> Launch:
        place = self.documents.place(node)
        notes: list[Note] = []
        arguments = launcher_arguments(self.words("entrypoint"), self.words("command"), self.variables)
        if arguments is None:
            notes.append(Note(place, UNKNOWN_PROGRAM, True))
        if "extends" in self.parts:
            said = "extends another service, which is not read: give what `docker compose config` prints"
            notes.append(Note(place, said, True))
        settings = [*self._files(read_beside, notes), *self._environment()]
        settings += flag_settings(arguments or [], self.documents.file)
        launch = Launch(name, "compose", place, image, settings, gpus=self._gpus(settings), address=name, notes=notes)
        launch.published = self._published()
        launch.host_network = self.documents.text(self.parts.get("network_mode")) == "host"
        launch.source = self.documents.plain(node)
        return launch

    def words(self, part: str) -> list[Word]:
        """Return the words of `command` or `entrypoint`, which is a list or one text."""
        node = self.parts.get(part)
        if node is None or self.documents.is_sequence(node):
            items = self.documents.sequence(node)
            return [Word(self._filled(item), self.documents.place(item).line) for item in items]
        first = self.documents.place(node).line
        return [word for line in command_lines(self._filled(node), Variables({}), first) for word in line.words]

    def _filled(self, node: YamlNode) -> str:
        return self.variables.fill(self.documents.text(node))

    def _environment(self) -> list[LaunchSetting]:
        node = self.parts.get("environment")
        found = []
        for key, value in self.documents.mapping(node).items():
            found.append(variable_setting(key, self._filled(value), self.documents.place(value)))
        for item in self.documents.sequence(node):
            name, equals, value = self._filled(item).partition("=")
            value = value if equals else self.variables.fill(f"${{{name}}}")
            found.append(variable_setting(name, value, self.documents.place(item)))
        return found

    def _files(self, read_beside: ReadBeside, notes: list[Note]) -> list[LaunchSetting]:
        node = self.parts.get("env_file")
        found: list[LaunchSetting] = []
        for item in self.documents.sequence(node) or ([node] if node else []):
            name = self._filled(item) or self.documents.text(self.documents.at(item, "path"))
            text = read_beside(name)
            if text is None:
                notes.append(Note(self.documents.place(item), f"env_file {name} is not there; give it by --env", True))
            else:
                found += environment_lines(text, name)
        return found

    def _published(self) -> dict[str, str]:
        found = {}
        for item in self.documents.sequence(self.parts.get("ports")):
            outside, _, inside = self._filled(item).rpartition(":")
            inside = inside or self._filled_at(item, "target")
            found[inside.partition("/")[0]] = outside.rpartition(":")[2] or self._filled_at(item, "published")
        return found

    def _filled_at(self, node: YamlNode, key: str) -> str:
        found = self.documents.at(node, key)
        return self._filled(found) if found is not None else ""

    def _gpus(self, settings: list[LaunchSetting]) -> int | None:
        visible = {setting.name: setting.value for setting in settings}
        for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
            if (count := device_count(visible.get(name, ""))) is not None:
                return count
        devices = self.documents.at(self.parts.get("deploy"), "resources", "reservations", "devices")
        for device in self.documents.sequence(devices):
            ids = self.documents.sequence(self.documents.at(device, "device_ids"))
            count_text = self.documents.text(self.documents.at(device, "count"))
            if ids or count_text.isdecimal():
                return len(ids) or int(count_text)
        return None


def environment_lines(text: str, file: str) -> list[LaunchSetting]:
    """Return the settings of a file of NAME=value lines."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            found.append(variable_setting(name.strip(), value.strip().strip("'\""), Place(file, number)))
    return found
