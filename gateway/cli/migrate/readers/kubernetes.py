"""Reads the TGI containers of Kubernetes' workloads; ConfigMaps of the same input fill their environment."""

from collections.abc import Iterator

from gateway.cli.migrate.launch import Launch, LaunchSetting, Note
from gateway.cli.migrate.readers.arguments import (
    UNKNOWN_PROGRAM,
    expanded,
    flag_settings,
    is_launcher,
    launcher_arguments,
    variable_setting,
)
from gateway.cli.migrate.readers.command_line import device_count
from gateway.cli.migrate.readers.images import is_tgi, not_tgi
from gateway.cli.migrate.readers.words import Variables, Word
from gateway.cli.migrate.yaml_nodes import Documents, YamlNode

POD = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "Pod": (),
}


class Objects:
    """The objects of an input, lists of them opened."""

    def __init__(self, documents: Documents) -> None:
        self.documents = documents
        self.nodes: list[YamlNode] = []
        for node in documents.nodes:
            items = documents.sequence(documents.at(node, "items"))
            self.nodes += items if self.kind(node).endswith("List") else [node]

    def kind(self, node: YamlNode) -> str:
        """Return an object's kind."""
        return self.text(node, "kind")

    def text(self, node: YamlNode | None, *path: str) -> str:
        """Return the text at the end of a path of keys."""
        return self.documents.text(self.documents.at(node, *path))

    def named(self, kind: str, name: str) -> YamlNode | None:
        """Return the object of a kind and a name, or None."""
        return next((n for n in self.nodes if self.kind(n) == kind and self.text(n, "metadata", "name") == name), None)

    def service_of(self, labels: dict[str, str]) -> YamlNode | None:
        """Return the Service that selects pods with these labels, or None."""
        for node in self.nodes:
            selector = self.documents.mapping(self.documents.at(node, "spec", "selector"))
            wanted = {key: self.documents.text(value) for key, value in selector.items()}
            if self.kind(node) == "Service" and wanted and wanted.items() <= labels.items():
                return node
        return None


def read(documents: Documents, skipped: list[Note]) -> Iterator[Launch]:
    """Yield the launches of the workloads; a container whose image is not TGI's is noted in `skipped`."""
    objects = Objects(documents)
    for node in objects.nodes:
        if (path := POD.get(objects.kind(node))) is None:
            continue
        pod = documents.at(node, *path)
        for container in documents.sequence(documents.at(pod, "spec", "containers")):
            reader = _Container(objects, documents.mapping(container), node, pod)
            image = documents.text(reader.parts.get("image"))
            if is_tgi(image) or is_launcher(reader.words("command")) or is_launcher(reader.words("args")):
                yield reader.launch(container, image)
            else:
                skipped.append(not_tgi(image, documents.place(container)))


class _Container:
    """One container's parts, in its pod and its workload."""

    def __init__(self, objects: Objects, parts: dict[str, YamlNode], workload: YamlNode, pod: YamlNode | None) -> None:
        self.objects = objects
        self.documents = objects.documents
        self.parts = parts
        self.workload = workload
        self.pod = pod

    def launch(self, node: YamlNode, image: str) -> Launch:
        place = self.documents.place(node)
        notes: list[Note] = []
        environment = [*self._from_maps(notes), *self._environment()]
        known = {one.source: one.value for one in environment if one.value or one.reference is None}
        entry = expanded(self.words("command"), known)
        arguments = launcher_arguments(entry, expanded(self.words("args"), known), Variables(known))
        if arguments is None:
            notes.append(Note(place, UNKNOWN_PROGRAM, True))
        settings = environment + flag_settings(arguments or [], self.documents.file)
        name = self.objects.text(self.workload, "metadata", "name") or "tgi"
        launch = Launch(name, "kubernetes", place, image, settings, gpus=self._gpus(known), notes=notes)
        self._reachable(launch)
        return launch

    def words(self, part: str) -> list[Word]:
        """Return the words of `command` or `args`."""
        items = self.documents.sequence(self.parts.get(part))
        return [Word(self.documents.text(item), self.documents.place(item).line) for item in items]

    def _reachable(self, launch: Launch) -> None:
        """Note the Service before it, and what the writer copies."""
        labels = self.documents.mapping(self.documents.at(self.pod, "metadata", "labels"))
        service = self.objects.service_of({key: self.documents.text(value) for key, value in labels.items()})
        name = self.objects.text(service, "metadata", "name") or launch.name
        namespace = self.objects.text(self.workload, "metadata", "namespace")
        launch.address = f"{name}.{namespace}" if namespace else name
        ports = self.documents.sequence(self.documents.at(service, "spec", "ports"))
        launch.service_port = self.objects.text(ports[0], "port") if ports else ""
        if service is None:
            launch.notes.append(Note(launch.place, f"no Service selects it in this input; taken to be {name}"))
        container = self.documents.text(self.parts.get("name"))
        launch.host_network = self.objects.text(self.pod, "spec", "hostNetwork") == "true"
        launch.source = {
            "workload": self.documents.plain(self.workload),
            "service": self.documents.plain(service),
            "container": container,
        }

    def _environment(self) -> list[LaunchSetting]:
        found: list[LaunchSetting] = []
        for item in self.documents.sequence(self.parts.get("env")):
            name, place = self.objects.text(item, "name"), self.documents.place(item)
            elsewhere = self.documents.at(item, "valueFrom")
            value = self.objects.text(item, "value")
            if elsewhere is not None:
                value = self._looked_up(elsewhere)
            found.append(variable_setting(name, value, place, reference=self.documents.plain(elsewhere)))
        return found

    def _looked_up(self, elsewhere: YamlNode) -> str:
        """Return the value behind a `valueFrom`, if the input has it."""
        name, key = (self.objects.text(elsewhere, "configMapKeyRef", part) for part in ("name", "key"))
        data = self.documents.at(self.objects.named("ConfigMap", name), "data")
        return self.documents.text(self.documents.mapping(data).get(key))

    def _from_maps(self, notes: list[Note]) -> list[LaunchSetting]:
        found: list[LaunchSetting] = []
        for item in self.documents.sequence(self.parts.get("envFrom")):
            place = self.documents.place(item)
            name = self.objects.text(item, "configMapRef", "name")
            secret = self.objects.text(item, "secretRef", "name")
            data = self.objects.named("ConfigMap", name) if name else None
            if data is None:
                which = f"the ConfigMap {name}" if name else f"the Secret {secret}"
                optional = "true" in (self.objects.text(item, ref, "optional") for ref in ("configMapRef", "secretRef"))
                notes.append(Note(place, f"{which} is not in this input: what it sets is not known", not optional))
            prefix = self.objects.text(item, "prefix")
            for key, value in self.documents.mapping(self.documents.at(data, "data")).items():
                reference = {"configMapKeyRef": {"name": name, "key": key}}
                text, place = self.documents.text(value), self.documents.place(value)
                found.append(variable_setting(prefix + key, text, place, reference=reference))
        return found

    def _gpus(self, environment: dict[str, str]) -> int | None:
        for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
            if (count := device_count(environment.get(name, ""))) is not None:
                return count
        for part in ("limits", "requests"):
            for resource, value in self.documents.mapping(self.documents.at(self.parts.get("resources"), part)).items():
                if resource.endswith(("/gpu", "/gaudi")) and self.documents.text(value).isdecimal():
                    return int(self.documents.text(value))
        return None
