"""TGI's own API, translated: what a real TGI said is what comes of a vLLM that wrote the same tokens."""

import json
from typing import Any

import pytest

from backends.base import BackendError, Cause
from backends.inbound.tgi import translate as inbound
from backends.inbound.tgi.answers import (
    Piece,
    Splitter,
    Step,
    StreamReader,
    StreamWriter,
    Whole,
    is_special,
    piece,
    unnamed,
)
from backends.inbound.tgi.passthrough import DetailsFilter
from backends.inbound.tgi.serde import Rejected
from backends.inbound.tgi.wire import Choice, Logprobs, TgiRequest
from tests.support import recorded, shapes
from tests.support.tgi_recorded import load, names_in, vllm_stream, vllm_whole

WHOLE = (
    "N01_generate_no_parameters_max20",
    "N02_generate_details",
    "N03_generate_details_top_n",
    "N04_generate_do_sample_seed",
    "N05_generate_temperature_top_p",
    "N06_generate_best_of",
    "N08_generate_stop",
    "N08b_generate_stop_across_tokens",
    "N08c_generate_stop_two_tokens",
    "N09_generate_stop_inside_token",
    "N10_generate_return_full_text",
    "N11_generate_decoder_input_details",
    "N12_generate_truncate",
    "N14_generate_repetition_penalty",
    "N15_generate_frequency_penalty",
    "N16_generate_grammar_regex",
    "N17_generate_grammar_json",
    "N18_generate_grammar_json_schema_named",
    "N32_generate_unknown_parameter",
    "N33_generate_missing_inputs",
    "N39_generate_adapter_unknown",
    "N40_root_compat",
    "N42_generate_special_token_in_inputs",
    "N119_generate_eos",
)
STREAMS = (
    "N41_root_compat_stream",
    "N50_stream",
    "N51_stream_details_top_n",
    "N52_stream_stop",
    "N57_stream_return_full_text",
    "N58_stream_grammar_regex",
    "N59_stream_raw_wire",
    "N119b_stream_eos",
)
REFUSED = (
    "N07_generate_best_of_seed_rejected",
    "N19_generate_grammar_no_properties",
    "N20_generate_grammar_array_root",
    "N21_generate_max_new_tokens_0",
    "N22_generate_temperature_0",
    "N23_generate_temperature_negative",
    "N24_generate_top_p_1",
    "N25_generate_top_k_0",
    "N26_generate_top_n_6_rejected",
    "N27_generate_stop_5_rejected",
    "N29_generate_empty_inputs",
    "N53_stream_validation_error",
    "N55_stream_best_of_rejected",
    "N56_stream_decoder_input_details_rejected",
)
TOO_LONG = {"N30_generate_too_long_inputs": 2001, "N31_generate_too_many_new_tokens": 2, "N54_stream_too_long": 2001}
MISREAD = (
    "N28_generate_stop_string_rejected",
    "N34_generate_no_inputs_field",
    "N35_generate_malformed",
    "N38_generate_negative_seed",
)


def asked(path: str = "/generate", inputs: str = "def main", **parameters: Any) -> TgiRequest:
    return inbound.read(path, json.dumps({"inputs": inputs, "parameters": parameters}).encode())


# --- a vLLM that writes what TGI wrote ------------------------------------------------------------------------


# --- answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_is_what_tgi_said(name: str) -> None:
    wanted, case = load(name)
    said = json.loads(case.response_body)
    details = (said[0] if isinstance(said, list) else said).get("details") or {}
    whole = Whole(wanted, details.get("seed") or 0, vllm_whole(wanted, said))
    body, written = whole.render(names_in(said))
    got = json.loads(body)
    for sequence in details.get("best_of_sequences", []):  # TGI draws each seed anew, vLLM counts from the first
        sequence["seed"] = details["seed"] + 1
    assert got == said
    assert shapes.shape(got) == shapes.shape(said)
    assert json.dumps(list(got)) == json.dumps(list(said))  # the order too
    if details:
        assert str(written) == case.response_headers["x-generated-tokens"]


@pytest.mark.parametrize("name", WHOLE)
def test_vllm_is_asked_for_no_more_than_is_told(name: str) -> None:
    wanted, _ = load(name)
    body = json.loads(inbound.encode(wanted, "own", 1024, 7).body)
    assert body["model"] == "own"
    assert body["prompt"] == wanted.inputs
    assert ("logprobs" in body) == (wanted.details or wanted.sequences > 1)
    hot = (wanted.parameters.temperature or 0) > inbound.HOTTEST
    assert (inbound.refusal(wanted) is not None) == hot


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_what_tgi_said_however_it_is_cut(name: str) -> None:
    wanted, case = load(name)
    said = shapes.events(case.response_body)
    data = b"".join(vllm_stream(wanted, said))
    for size in (1, 7, 100, len(data)):
        reader, writer, got = StreamReader(wanted), StreamWriter(wanted, 31), b""
        for start in range(0, len(data), size):
            pieces = reader.feed(data[start : start + size])
            got += writer.write(pieces, names_in(said), reader.prompt_tokens)
        assert (reader.finished, reader.failure) == (True, None)
        assert shapes.events(got) == said
        assert writer.written == len(said)


def test_the_text_of_an_engine_without_token_ids_is_streamed() -> None:
    """TGI's clients read the tokens' texts, not the last event's: each chunk is as good as a token."""
    wanted = asked("/generate_stream")
    reader, writer = StreamReader(wanted), StreamWriter(wanted, 31)
    pieces = reader.feed(
        b'data: {"choices":[{"text":"a"}]}\n\ndata: {"choices":[{"text":"b","finish_reason":"stop"}]}\n\n'
    )
    said = shapes.events(writer.write(pieces, {}, 1))
    assert [(one["token"]["text"], one["token"]["special"]) for one in said] == [("a", False), ("b", False)]
    assert [one["generated_text"] for one in said] == [None, "ab"]


def test_without_names_it_is_said_which_are_wanted() -> None:
    wanted, case = load("N51_stream_details_top_n")
    said = shapes.events(case.response_body)
    pieces = StreamReader(wanted).feed(b"".join(vllm_stream(wanted, said)))
    assert unnamed(pieces, {}) == names_in(said).keys()
    assert unnamed(pieces, names_in(said)) == set()


def test_the_first_token_of_the_prompt_has_to_be_named_and_so_have_mended_ones() -> None:
    wanted = asked(decoder_input_details=True)
    ids, texts = [1, 2, 3, 4, 5], ["a", "b", "", "é", "c"]
    beside = [None] + [
        {str(token): {"logprob": -1.0, "decoded_token": text}} for token, text in zip(ids[1:], texts[1:], strict=True)
    ]
    choice: dict[str, Any] = {"text": " x", "finish_reason": "length", "token_ids": [9], "prompt_token_ids": ids}
    choice |= {"prompt_logprobs": beside, "logprobs": {"tokens": [" x"], "token_logprobs": [-1.0]}}
    body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}).encode()
    whole = Whole(wanted, 0, body)
    assert whole.unnamed({}) == {1, 3, 4}
    told = json.loads(whole.render({1: "a", 3: "\ufffd", 4: "\ufffd"})[0])["details"]["prefill"]
    assert [token["text"] for token in told] == ["a", "b", "\ufffd", "\ufffd", "c"]
    assert [token["logprob"] for token in told] == [None, -1.0, -1.0, -1.0, -1.0]


@pytest.mark.parametrize(
    ("texts", "names", "expected"),
    [
        (["ab"], [["a", "b"]], ["a", "b"]),
        (["a", "b"], [["a"], ["b"]], ["a", "b"]),
        (["", "é"], [["\ufffd"], ["\ufffd"]], ["", "é"]),
        (["é x"], [["\ufffd", "\ufffd", " x"]], ["", "é", " x"]),
        (["", "\ufffdmax"], [[""], ["max"]], ["", "\ufffdmax"]),  # as TGI says it (N119)
        (["\ufffdmax"], [["\ufffd", "max"]], ["", "\ufffdmax"]),
        (["é"], [["", "é", "</s>"]], ["", "é", "</s>!"]),
        (["é"], [["\ufffd", "\ufffd", "</s>"]], ["", "é", "</s>!"]),
        (["one two"], [["one", "two"]], ["one", " two"]),  # a tokenizer that leaves blanks out of its names
        ([" pres"], [[" present"]], [" pres"]),  # cut behind the stop text "es"
        (["ab"], [["a", "</s>", "b"]], ["a", "</s>!", "b"]),
        (["a", "b"], [["</s>"], ["<s>"]], ["a", "b"]),  # no token that is shown has a name of the text's
    ],
)
def test_each_token_gets_its_share_of_the_text(texts: list[str], names: list[list[str]], expected: list[str]) -> None:
    splitter = Splitter()
    pieces = [
        Piece(text, [Step(place, name, -1.0, []) for place, name in enumerate(some)], None)
        for text, some in zip(texts, names, strict=True)
    ]
    made = [token for one in pieces for token in splitter.split(one, {})]
    assert [token.text + "!" * token.special for token in made] == expected
    assert "".join(token.text for token in made if not token.special) == "".join(texts)


@pytest.mark.parametrize(
    ("finish", "stop", "parameters", "expected"),
    [
        ("length", None, {"max_new_tokens": 2}, "length"),
        ("stop", None, {"max_new_tokens": 2}, "eos_token"),
        ("stop", 3, {"max_new_tokens": 2}, "eos_token"),
        ("stop", "x", {"max_new_tokens": 2, "stop": ["x"]}, "stop_sequence"),
        ("stop", None, {"max_new_tokens": 1}, "length"),  # TGI looks at the limit first
        ("length", None, {"max_new_tokens": 9, "stop": [""]}, "stop_sequence"),
        ("length", None, {"max_new_tokens": 1, "stop": [""]}, "length"),
    ],
)
def test_finish_reasons(finish: str, stop: object, parameters: dict[str, Any], expected: str) -> None:
    choice: dict[str, Any] = {"text": "a", "finish_reason": finish, "stop_reason": stop, "token_ids": [1]}
    choice["logprobs"] = {"tokens": ["a"], "token_logprobs": [-1.0]}
    body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1}}).encode()
    told = json.loads(Whole(asked(details=True, **parameters), 0, body).render({})[0])
    assert told["details"]["finish_reason"] == expected


def test_the_best_is_the_one_with_the_highest_mean_logprob() -> None:
    wanted = asked(best_of=2, do_sample=True, details=True)
    choices = [
        {
            "index": index,
            "text": text,
            "finish_reason": "length",
            "token_ids": [1],
            "logprobs": {"tokens": [text], "token_logprobs": [value]},
        }
        for index, text, value in ((1, "good", -1.0), (0, "bad", -2.0))
    ]
    body = json.dumps({"choices": choices, "usage": {"prompt_tokens": 1, "completion_tokens": 2}}).encode()
    told = json.loads(Whole(wanted, 10, body).render({})[0])
    assert (told["generated_text"], told["details"]["seed"]) == ("good", 11)
    (other,) = told["details"]["best_of_sequences"]
    assert (other["generated_text"], other["seed"]) == ("bad", 10)


# --- failures of vLLM's ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", Cause.FAILED),
        (b"data: [DONE]\n\n", Cause.FAILED),
        (b'data: {"choices":[{"text":"a","finish_reason":null}]}\n\ndata: [DONE]\n\n', Cause.FAILED),
        (b'data: {"choices":[{"text":"a","finish_reason":"abort"}]}\n\n', Cause.FAILED),
        (b'data: {"error":{"message":"m","code":500}}\n\ndata: [DONE]\n\n', Cause.FAILED),
        (b'data: {"error":{"message":"m","code":400}}\n\n', Cause.INVALID),
        (b"data: nonsense\n\n", Cause.FAILED),
        (b"data: {nonsense\n\n", Cause.PROTOCOL_ERROR),
        (b'data: {"x":1}\n\n', Cause.FAILED),
        (
            b'data: {"choices":[{"text":"a","logprobs":{"tokens":["a"],"token_logprobs":[0]}}]}\n\n',
            Cause.PROTOCOL_ERROR,
        ),
    ],
)
def test_a_stream_that_breaks_says_why(data: bytes, cause: Cause) -> None:
    reader = StreamReader(asked("/generate_stream"))
    reader.feed(data)
    if reader.failure is None:
        reader.end()
    assert reader.failure is not None
    assert reader.failure.cause is cause
    assert not reader.finished


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"{}", b'{"choices":[]}', b'{"choices":[{"text":7}],"usage":null}', b"data: x\n\n"]
)
def test_a_whole_answer_that_is_none(body: bytes) -> None:
    with pytest.raises(BackendError) as caught:
        Whole(asked(), 0, body)
    assert caught.value.cause is Cause.PROTOCOL_ERROR


def test_a_whole_answer_that_was_cut() -> None:
    body = b'data: {"choices":[{"text":"a"}],"usage":{"prompt_tokens":1}}\n\n'
    with pytest.raises(BackendError) as caught:
        Whole(asked(), 0, body)
    assert caught.value.cause is Cause.FAILED


def test_the_likeliest_are_sorted_and_no_more_than_were_asked_for() -> None:
    likely = {"token_id:9": -5.0, "token_id:1": -1.0, "token_id:2": -2.0}
    choice = Choice("x", token_ids=[9], logprobs=Logprobs(["token_id:9"], [-5.0], [likely]))
    (step,) = piece(choice, asked(top_n_tokens=2, details=True)).steps
    assert step.top == [(1, -1.0), (2, -2.0)]


@pytest.mark.parametrize(
    ("name", "special"),
    [("<|im_end|>", True), ("</s>", True), ("<eos>", True), ("<div>", False), (" main", False), ("", False)],
)
def test_what_looks_special(name: str, special: bool) -> None:
    assert is_special(name) is special


# --- requests -------------------------------------------------------------------------------------------------

SETTLED = {"repetition_penalty": 1.0, "frequency_penalty": 0.0}
GREEDY = SETTLED | {"temperature": 0.0}
SAMPLED = SETTLED | {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 7}
TOKENS = {"return_token_ids": True, "return_tokens_as_token_ids": False, "logprobs": 0}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, GREEDY | {"max_tokens": 1024}),
        ({"max_new_tokens": 3}, GREEDY | {"max_tokens": 3}),
        ({"max_new_tokens": 3000}, GREEDY | {"max_tokens": 1024}),
        ({"temperature": 1.0}, GREEDY),  # TGI's server does not sample for that alone
        ({"temperature": 0.5}, SAMPLED | {"temperature": 0.5}),
        ({"top_k": 3}, SAMPLED | {"top_k": 3}),
        ({"top_p": 0.5}, SAMPLED | {"top_p": 0.5}),
        ({"do_sample": True}, SAMPLED),
        (
            {"repetition_penalty": 1.5, "frequency_penalty": -1},
            GREEDY | {"repetition_penalty": 1.5, "frequency_penalty": -1},
        ),
        ({"details": True}, GREEDY | TOKENS),
        (
            {"details": True, "top_n_tokens": 2},
            GREEDY | {"logprobs": 2, "return_tokens_as_token_ids": True, "stream": True},
        ),
        ({"decoder_input_details": True}, GREEDY | TOKENS | {"prompt_logprobs": 0}),
        ({"best_of": 2, "do_sample": True}, SAMPLED | TOKENS | {"n": 2}),
        ({"best_of": 2, "temperature": 1.0}, GREEDY | TOKENS),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"], "include_stop_str_in_output": True}),
        ({"stop": ["a", ""], "max_new_tokens": 9}, {"max_tokens": 1}),
        ({"truncate": 5}, {"truncate_prompt_tokens": 5, "truncation_side": "left"}),
        ({"grammar": {"type": "regex", "value": "a+"}}, {"structured_outputs": {"regex": "a+"}}),
        (
            {"grammar": {"type": "json", "value": '{"properties":{}}'}},
            {"structured_outputs": {"json": {"properties": {}}}},
        ),
        (
            {"grammar": {"type": "json_schema", "value": {"name": "x", "schema": {"properties": {}}}}},
            {"structured_outputs": {"json": {"properties": {}}}},
        ),
        ({"adapter_id": "x", "no_such": 1}, GREEDY),
    ],
)
def test_what_vllm_is_asked(parameters: dict[str, Any], expected: dict[str, Any]) -> None:
    wanted = asked(**parameters)
    assert inbound.refusal(wanted) is None
    body = json.loads(inbound.encode(wanted, "own", 1024, 7).body)
    assert {name: body.get(name) for name in expected} == expected
    assert ("n" in body) == ("n" in expected)
    assert ("seed" in body) == (body["temperature"] > 0)


def test_absent_parameters_mean_sampling() -> None:
    assert not inbound.read("/generate", b'{"inputs": "x"}').greedy
    assert inbound.read("/generate", b'{"inputs": "x", "parameters": {}}').greedy


@pytest.mark.parametrize(
    ("path", "more", "stream", "full"),
    [
        ("/generate", {}, False, False),
        ("/generate", {"stream": "of any type"}, False, False),
        ("/generate_stream", {}, True, False),
        ("/", {}, False, True),
        ("/", {"stream": True}, True, True),
        ("/", {"parameters": {"return_full_text": False}}, False, False),
        ("/", {"parameters": {"return_full_text": None}}, False, True),
    ],
)
def test_the_path_says_how_to_answer(path: str, more: dict[str, Any], stream: bool, full: bool) -> None:
    wanted = inbound.read(path, json.dumps({"inputs": "x"} | more).encode())
    assert (wanted.stream, wanted.full_text) == (stream, full)


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1, 2**64 - 1])
def test_a_seed_of_64_bits_fits_vllm(seed: int) -> None:
    body = json.loads(inbound.encode(asked(seed=seed, do_sample=True), "own", 9, seed).body)
    assert body["seed"] == seed & (2**63 - 1)


def test_with_details_keeps_what_absent_parameters_mean() -> None:
    assert json.loads(inbound.with_details(b'{"inputs":"x"}')) == {
        "inputs": "x",
        "parameters": {"do_sample": True, "details": True},
    }
    assert json.loads(inbound.with_details(b'{"inputs":"x","parameters":{"a":1}} and more')) == {
        "inputs": "x",
        "parameters": {"a": 1, "details": True},
    }


# --- refusals -------------------------------------------------------------------------------------------------


def recorded_error(case: recorded.Recorded) -> str:
    said = json.loads(case.response_body.removeprefix(b"data: "))
    assert said["error_type"] == "validation"
    return str(said["error"]).removeprefix("Input validation error: ")


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_in_tgis_words(name: str) -> None:
    wanted, case = load(name)
    assert inbound.refusal(wanted) == recorded_error(case)


@pytest.mark.parametrize("name", TOO_LONG)
def test_what_does_not_fit_is_refused_in_tgis_words(name: str) -> None:
    wanted, case = load(name)
    assert inbound.refusal(wanted) is None
    assert inbound.may_not_fit(wanted, 1024)
    assert inbound.too_long(wanted, 1024, TOO_LONG[name]) == recorded_error(case)


@pytest.mark.parametrize(
    ("parameters", "count", "expected"),
    [
        ({}, 1023, None),
        ({}, 1024, "`inputs` must have less than 1023 tokens. Given: 1024"),
        ({"max_new_tokens": 4}, 1020, None),
        ({"truncate": 3, "max_new_tokens": 4}, 5000, None),
        ({"truncate": 0}, 2, "`truncate` must be strictly positive and less than 1023. Given: 0"),
        ({"truncate": 4000}, 2, "`truncate` must be strictly positive and less than 1023. Given: 4000"),
        ({"truncate": 1023}, 2, None),
    ],
)
def test_what_fits(parameters: dict[str, Any], count: int, expected: str | None) -> None:
    assert inbound.too_long(asked(**parameters), 1024, count) == expected


def test_a_short_prompt_is_not_counted() -> None:
    assert not inbound.may_not_fit(asked(max_new_tokens=100, truncate=5), 1024)
    assert not inbound.may_not_fit(asked(), 1024)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"watermark": True}, "`watermark`"),
        ({"typical_p": 0.5}, "`typical_p`"),
        ({"temperature": 2.5}, "`temperature`"),
        ({"best_of": 3, "do_sample": True}, "`best_of`"),
        ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
        ({"grammar": {"type": "json", "value": 3}}, "grammar is not supported"),
        (
            {"grammar": {"type": "json", "value": "{bad"}},
            "grammar is not valid: key must be a string at line 1 column 2",
        ),
    ],
)
def test_what_cannot_be_is_named(parameters: dict[str, Any], named: str) -> None:
    words = inbound.refusal(asked(**parameters))
    assert words is not None
    assert words.startswith(named)


@pytest.mark.parametrize("name", MISREAD)
def test_a_body_that_tgi_does_not_read_is_told_in_its_words(name: str) -> None:
    case = recorded.load(f"tgi/{name}")
    with pytest.raises(Rejected) as caught:
        inbound.read(case.path, case.body)
    assert (caught.value.status, caught.value.text.encode()) == (case.status, case.response_body)


P = '{"inputs":"x","parameters":{"max_new_tokens":1,%s}}'


@pytest.mark.parametrize(
    ("body", "words"),
    [  # asked of a real TGI
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{", "EOF while parsing an object at line 1 column 1"),
        ('{"inputs": "x', "inputs: EOF while parsing a string at line 1 column 13"),
        ('{"inputs": ', "inputs: EOF while parsing a value at line 1 column 11"),
        ('{"inputs":"x",', "EOF while parsing a value at line 1 column 14"),
        ('{"inputs":"x",}', "trailing comma at line 1 column 15"),
        ('{"inputs": tru}', "inputs: expected ident at line 1 column 15"),
        ('{"inputs" "x"}', "expected `:` at line 1 column 11"),
        ("{'inputs':1}", "key must be a string at line 1 column 2"),
        ('{"inputs": "a\\qb"}', "inputs: invalid escape at line 1 column 15"),
        (
            '{"inputs": "x", "parameters": {"stop": ["a"',
            "parameters.stop: EOF while parsing a list at line 1 column 43",
        ),
        (
            '{"inputs": "x", "parameters": {"max_new_tokens": 04}}',
            "parameters.max_new_tokens: invalid number at line 1 column 51",
        ),
        (
            '{"inputs":"x","parameters":{"max_new_tokens":1.}}',
            "parameters.max_new_tokens: invalid number at line 1 column 48",
        ),
        (
            '{"inputs":"x","parameters":{"max_new_tokens":-}}',
            "parameters.max_new_tokens: invalid number at line 1 column 47",
        ),
        (P % '"temperature":1e400', "parameters.temperature: number out of range at line 1 column 66"),
        ("7", "invalid type: integer `7`, expected struct GenerateRequest at line 1 column 1"),
        ("[]", "invalid length 0, expected struct GenerateRequest with 2 elements at line 1 column 2"),
        ('{"inputs": 1.50}', "inputs: invalid type: floating point `1.5`, expected a string at line 1 column 15"),
        ('{"inputs": {"a":1}}', "inputs: invalid type: map, expected a string at line 1 column 11"),
        (
            '{"inputs": "x",\n "parameters": {"max_new_tokens":\n  "é"}}',
            'parameters.max_new_tokens: invalid type: string "é", expected u32 at line 3 column 6',
        ),
        (
            '{"inputs":"x","parameters":null}',
            "parameters: invalid type: null, expected struct GenerateParameters at line 1 column 31",
        ),
        (
            P % '"seed":18446744073709551616',
            "parameters.seed: invalid type: floating point `1.8446744073709552e19`, expected u64 at line 1 column 74",
        ),
        (
            P % '"grammar":"x"',
            'parameters.grammar: invalid type: string "x", expected adjacently tagged enum GrammarType',
        ),
        (P % '"grammar":{"type":"json"}', "parameters.grammar: missing field `value`"),
        (P % '"grammar":{"value":"x"}', "parameters.grammar: missing field `type`"),
        (
            P % '"grammar":{"type":"regex","value":7}',
            "parameters.grammar.value: invalid type: integer `7`, expected a string",
        ),
        (
            P % '"grammar":{"type":"xml","value":1}',
            "parameters.grammar.type: unknown variant `xml`, expected one of `json`, `json_object`, `regex`, ",
        ),
        (
            P % '"grammar":{"type":"json_schema","value":{"name":"x"}}',
            "parameters.grammar.value: missing field `schema`",
        ),
        (P % '"stop":["a",1]', "parameters.stop[1]: invalid type: integer `1`, expected a string"),
        (P % '"details":null', "parameters.details: invalid type: null, expected a boolean"),
        (P % '"best_of":-1', "parameters.best_of: invalid value: integer `-1`, expected usize"),
        (P % '"top_k":3000000000', "parameters.top_k: invalid value: integer `3000000000`, expected i32"),
    ],
)
def test_serdes_words(body: str, words: str) -> None:
    with pytest.raises(Rejected) as caught:
        inbound.read("/generate", body.encode())
    assert words in caught.value.text


def test_a_field_named_twice_is_told_where_the_slow_reading_sees_it() -> None:
    with pytest.raises(Rejected) as caught:
        inbound.read("/generate", b'{"inputs": "x", "inputs": "y"} trailing')
    assert caught.value.text.endswith("duplicate field `inputs` at line 1 column 24")


@pytest.mark.parametrize("body", [b'{"inputs":"\xff"}', b'{"inputs":"\\ud800"}', b'{"inputs":' + b"[" * 200])
def test_what_no_json_reader_takes(body: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        inbound.read("/generate", body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "body", ['{"inputs":"x"} trailing', '{"inputs":"x","parameters":{"truncate":null}}', P % '"x":[{}]']
)
def test_what_tgi_takes_all_the_same(body: str) -> None:
    assert inbound.read("/generate", body.encode()).inputs == "x"


# --- TGI's own stream, passed -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
def test_a_passed_stream_is_counted_and_kept(name: str) -> None:
    case = recorded.load(f"tgi/{name}")
    payloads = [part.removeprefix(b"data: ") for part in case.response_body.split(b"\n\n") if part]
    passed = DetailsFilter(hidden=False)
    assert [passed.take(payload) for payload in payloads] == payloads
    assert passed.ended


def test_details_that_the_client_did_not_ask_for_are_taken_out_again() -> None:
    case = recorded.load("tgi/N51_stream_details_top_n")
    passed = DetailsFilter(hidden=True)
    last = [part.removeprefix(b"data: ") for part in case.response_body.split(b"\n\n") if part][-1]
    assert json.loads(passed.take(last)) == json.loads(last) | {"details": None}
    assert passed.usage is not None
    assert (passed.usage.prompt_tokens, passed.usage.completion_tokens) == (2, 3)


def test_an_error_ends_a_passed_stream_and_is_raised_if_it_is_the_first_event() -> None:
    case = recorded.load("tgi/L13_overload_generate_stream")
    passed = DetailsFilter(hidden=True)
    payload = case.response_body.removeprefix(b"data: ").strip()
    with pytest.raises(BackendError) as raised:
        passed.take(payload)
    assert raised.value.cause is Cause.OVERLOADED
    assert passed.ended
    with pytest.raises(BackendError):
        DetailsFilter(hidden=False).take(b"{nonsense")


@pytest.mark.parametrize("payload", [b"", b"{}", b"null", b"ping", b'{"type":"ping"}'])
def test_a_passed_event_that_says_nothing_is_left_out(payload: bytes) -> None:
    passed = DetailsFilter(hidden=False)
    assert (passed.take(payload), passed.written, passed.ended) == (b"", 0, False)


def test_info_has_tgis_fields() -> None:
    said = json.loads(recorded.load("tgi/N60_info").response_body)
    got = json.loads(inbound.info("tiny", 1024))
    assert list(got) == list(said)
    for name in ("model_id", "max_best_of", "max_stop_sequences", "max_input_tokens", "max_total_tokens", "version"):
        assert got[name] == said[name]
