"""Writes the launch of vLLM in the form in which TGI's was written, and a `pointsman.toml` with both.

    command       a shell script with `vllm serve …` or `docker run …`
    compose       a compose file to be laid over the old one
    kubernetes    a workload and a Service beside the old ones
    sagemaker     the environment of SageMaker's vLLM container
    gateway       pointsman.toml

Each returns files by their names; nothing is written to disk here.
"""

from collections.abc import Callable, Sequence

from gateway.cli.migrate.launch import CannotRead, Form
from gateway.cli.migrate.plan import VllmPlan
from gateway.cli.migrate.writers import command, compose, gateway, kubernetes, sagemaker

Write = Callable[[Sequence[VllmPlan]], dict[str, str]]

WRITERS: dict[Form, Write] = {
    "command": command.write,
    "docker": command.write,
    "compose": compose.write,
    "kubernetes": kubernetes.write,
    "sagemaker": sagemaker.write,
}


def write(plans: Sequence[VllmPlan]) -> dict[str, str]:
    """Return the files of all plans, by name; none for none.

    Raises CannotRead where what is copied from the old file has another shape than its form knows.
    """
    files: dict[str, str] = {}
    for form, writer in WRITERS.items():
        if of_form := [plan for plan in plans if plan.launch.form == form]:
            try:
                files |= writer(of_form)
            except (AttributeError, KeyError, TypeError) as error:  # such as a text where a mapping has to be
                places = ", ".join(str(plan.launch.place) for plan in of_form)
                raise CannotRead(f"{places}: some of what stands there has another shape than {form} knows") from error
    return files | ({"pointsman.toml": gateway.write(plans)} if plans else {})
