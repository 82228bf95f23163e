"""What TGI does by itself and vLLM does not."""

from gateway.cli.migrate.fates import Facts, Fate, Translated
from gateway.cli.migrate.known_models import tool_parser


def generation_config(facts: Facts) -> Translated:
    """TGI reads the ends of text alone from the model's generation_config.json."""
    why = "else vLLM takes the model's own temperature, top_p … where a client is silent; TGI does not"
    return Translated(Fate.DEFAULT, ("--generation-config", "vllm"), why=why)


def tools(facts: Facts) -> Translated:
    """TGI does tools by grammar for any model; vLLM needs a parser."""
    if parser := tool_parser(facts.model):
        why = "vLLM refuses tool_choice auto without; the parser by the model's name"
        return Translated(Fate.DEFAULT, ("--enable-auto-tool-choice", "--tool-call-parser", parser), why=why)
    why = (
        "vLLM refuses tool_choice auto without --enable-auto-tool-choice --tool-call-parser NAME, and the model's name "
    )
    why += "does not tell which; where its chat template knows no tools, the gateway says them (tools_in_prompt)"
    return Translated(Fate.LOST, why=why, enforced_by="gateway: tools_in_prompt, in part")


def cache_home(facts: Facts) -> Translated | None:
    """TGI's image keeps the Hub's cache in /data, vLLM's in /root/.cache."""
    if facts.launch.form in ("command", "sagemaker") or {"HF_HOME", "--huggingface-hub-cache"} & facts.values.keys():
        return None
    why = "TGI's image keeps the Hub's cache there: the same volume, no second download"
    return Translated(Fate.DEFAULT, environment={"HF_HOME": "/data"}, why=why)
