"""From a launch of TGI to one of vLLM: every setting through its row of the table, and what TGI did unasked."""

import shlex
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field

from gateway.cli.migrate.effective import Merged
from gateway.cli.migrate.fates import Facts, Fate, ReportRow, Translated
from gateway.cli.migrate.launch import Launch, LaunchSetting, Note, Place, masked, unresolved
from gateway.cli.migrate.table import ADDED, CHECKED, ROWS, VARIABLES, row

IMAGE = "vllm/vllm-openai"


class Target(Struct, frozen=True):
    """What to translate to, and what is known of machine and model (see `Facts`)."""

    version: tuple[int, ...] = CHECKED
    gpus: int | None = None
    gpu_memory: int = 0
    config: dict[str, Any] = {}


class VllmPlan(Struct):
    """A launch of vLLM. `arguments` are those of `vllm serve`, the model first.

    `port` is where it listens, `old_port` where TGI does; `host_port` is the host's for a container, if it has one.
    `environment` holds texts, or where the value is from (Kubernetes' `valueFrom`). `limits` go to the gateway.
    """

    launch: Launch
    port: str
    image: str
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    rows: list[ReportRow] = field(default_factory=list)
    model: str = ""
    adapters: str = ""
    old_port: str = ""
    host_port: str = ""

    @property
    def name(self) -> str:
        """What the new server is called."""
        return f"{self.launch.name}-vllm"

    @property
    def blocked(self) -> list[ReportRow]:
        """What somebody has to decide."""
        return [one for one in self.rows if one.fate is Fate.BLOCKED]

    def add_verdict(self, parser: str, wrong: str) -> None:
        """Note what the parser of a vLLM says of the arguments; nothing is wrong if `wrong` is empty."""
        fate, why = (Fate.BLOCKED, f"refuses them: {wrong}") if wrong else (Fate.SAME, "takes them")
        self.rows.append(ReportRow(fate, "(all arguments)", self.launch.place, why=f"the parser of {parser} {why}"))

    @property
    def shown_environment(self) -> dict[str, Any]:
        """The environment, with a name in the place of each secret: `${HF_TOKEN}`."""
        return {
            name: masked(name, value) if isinstance(value, str) else value for name, value in self.environment.items()
        }


def make_all(launches: Sequence[Launch], target: Target) -> list[VllmPlan]:
    """Return the plans for several launches, each with a port of its own on the host."""
    settings = [setting for launch in launches for setting in launch.settings]
    ports = [setting.value for setting in settings if setting.name == "--port"]
    ports += [port for launch in launches for port in launch.published.values()]
    _name_apart(launches)
    return [make(launch, target, ports) for launch in launches]


def _name_apart(launches: Sequence[Launch]) -> None:
    """Give launches that are called alike different names."""
    taken: set[str] = set()
    for launch in launches:
        name, number = launch.name, 1
        while launch.name in taken:
            number += 1
            launch.name = f"{name}-{number}"
        taken.add(launch.name)


def make(launch: Launch, target: Target, ports: list[str]) -> VllmPlan:
    """Return the plan for a launch. `ports` are taken on the host; the new server's is added to them."""
    merged = Merged(launch)
    facts = Facts(launch, merged.values, target.version, target.gpus, target.gpu_memory, target.config)
    facts.gpus = launch.gpus if target.gpus is None else target.gpus
    old_port = facts.value("--port", DEFAULT_PORT[launch.form])
    facts.port = free_port(old_port, ports) if launch.form == "command" or launch.host_network else old_port
    plan = VllmPlan(launch, facts.port, "", rows=merged.rows, model=facts.model)
    plan.old_port = old_port
    plan.adapters = facts.value("--lora-adapters")
    if published := launch.published.get(old_port):
        plan.host_port = free_port(published, ports)
    _image(plan, target)
    _settings(plan, facts)
    plan.rows += [
        ReportRow(Fate.BLOCKED, "(the file)", note.place, why=note.text) for note in launch.notes if note.blocks
    ]
    return plan


# TGI's own; its image's; what sagemaker-entrypoint.sh gives on the command line.
DEFAULT_PORT = {"command": "3000", "docker": "80", "compose": "80", "kubernetes": "80", "sagemaker": "8080"}


def free_port(old: str, taken: list[str]) -> str:
    """Return a port for vLLM on a host: its own 8000, or the next one that nothing here takes; note it as taken."""
    port = 8000
    while str(port) in (old, *taken):
        port += 1
    taken.append(str(port))
    return str(port)


def _image(plan: VllmPlan, target: Target) -> None:
    launch, place = plan.launch, plan.launch.place
    if launch.form == "command":
        return
    version = ".".join(map(str, (*target.version, 0)[:3]))
    if launch.variant == "cuda":
        plan.image = f"{IMAGE}:v{version}"
        row_of_it = ReportRow(Fate.MAPPED, f"image {launch.image}", place, plan.image)
    else:
        plan.image = f"{IMAGE}:choose-one-for-{launch.variant}"
        why = f"vLLM's image for {launch.variant} is another: choose it, and put its name in the place of {plan.image}"
        row_of_it = ReportRow(Fate.BLOCKED, f"image {launch.image}", place, plan.image, why)
    if launch.form != "sagemaker":
        plan.rows.append(row_of_it)


def _settings(plan: VllmPlan, facts: Facts) -> None:
    """Translate what is in force, in its order, then what nobody has given."""
    values = facts.values
    if "--model-id" in values:  # the positional argument comes first
        values = {"--model-id": values["--model-id"], **values}
    else:
        default = Translated(Fate.DEFAULT, (facts.model,), why="TGI's default model")
        _add(plan, default, "(--model-id)", plan.launch.place)
    for setting in values.values():
        _one(plan, setting, facts)
    for name in ROWS:
        absent = row(name, facts.version).absent
        if name not in facts.values and absent is not None and (made := absent(facts)) is not None:
            _add(plan, made, f"({name})", plan.launch.place)
    for name, added in ADDED.items():
        if (made := added(facts)) is not None:
            _add(plan, made, f"({name})", plan.launch.place)


def _one(plan: VllmPlan, setting: LaunchSetting, facts: Facts) -> None:
    if setting.name in ROWS:
        made = row(setting.name, facts.version).translate(setting.value, facts)
    elif setting.name in VARIABLES:
        made = VARIABLES[setting.name](setting.value, facts)
    else:
        made = Translated(Fate.SAME, environment={setting.name: setting.value}, why="not TGI's own: goes over as it is")
    _add(plan, made, setting.shown, setting.place, setting)


def _add(plan: VllmPlan, made: Translated, source: str, place: Place, setting: LaunchSetting | None = None) -> None:
    plan.arguments += made.arguments
    for name, value in made.environment.items():
        from_elsewhere = setting is not None and setting.reference is not None and value == setting.value
        plan.environment[name] = setting.reference if setting is not None and from_elsewhere else value
    if setting is not None and setting.reference is not None and f"$({setting.source})" in made.arguments:
        plan.environment[setting.source] = setting.reference
    plan.limits |= made.limits
    target = " ".join([*map(_word, made.arguments), *_shown(made, setting)])
    plan.rows.append(ReportRow(made.fate, source, place, target, made.why, made.enforced_by))


def _shown(made: Translated, setting: LaunchSetting | None) -> list[str]:
    """Return the variables as the report shows them: by name alone where the value is secret or goes over as it is."""
    by_name = setting is not None and (setting.secret or setting.reference is not None or made.fate is Fate.SAME)
    return [name if by_name else f"{name}={value}" for name, value in made.environment.items()]


def _word(word: str) -> str:
    return word if unresolved(word) else shlex.quote(word)


def notes(plan: VllmPlan) -> list[Note]:
    """Return what is to be known beside the rows, such as values that nobody has filled in."""
    return [note for note in plan.launch.notes if not note.blocks] + [
        Note(one.place, f"{one.shown} is not filled in, and goes over as it is written")
        for one in plan.launch.settings
        if unresolved(one.value)
    ]
