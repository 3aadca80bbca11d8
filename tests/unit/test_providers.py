"""One client for endpoints that behave as the recipe's do: what a model said arrives, apart from what it thought."""

import json

import providers
import pytest
from minds import Mind, solution

from distil.llm.client import Chat

ANSWERS = {f"What is {n} plus {n}?": str(2 * n) for n in range(6)}
ENDPOINTS = {
    "deepseek-reasoner": providers.DEEPSEEK,
    "qwq-32b": providers.DASHSCOPE,
    "qwen3-32b": providers.DASHSCOPE,
    "Qwen/QwQ-32B": providers.VLLM,
    "sglang": {"sglang": providers.SGLANG["Qwen/QwQ-32B"]},
    "no-parser": {"no-parser": providers.WITHOUT_PARSER["Qwen/QwQ-32B"]},
    "o4-mini": providers.OPENAI,
}


def prompts() -> list[list[dict]]:
    return [[{"role": "user", "content": question}] for question in ANSWERS]


@pytest.mark.parametrize("model", ENDPOINTS)
def test_what_is_said_is_apart_from_what_is_thought(tmp_path, model):
    with providers.serve(ENDPOINTS[model], Mind(ANSWERS)) as endpoint:
        chat = Chat(model, endpoint.url, store=tmp_path / "r.jsonl")
        replies = chat.map(prompts(), max_tokens=8192, temperature=0.6)
        again = Chat(model, endpoint.url, store=tmp_path / "r.jsonl").map(prompts(), max_tokens=8192, temperature=0.6)
    assert [reply.text for reply in replies] == [solution(answer, 0) for answer in ANSWERS.values()]
    assert again == replies and len(endpoint.requests) == len(ANSWERS), "asked once"
    for reply in replies:
        assert reply.finish_reason == "stop" and reply.completion_tokens > 300
        if model != "o4-mini":
            assert len(reply.reasoning.split()) > 300 and "\\boxed" not in reply.reasoning
            assert reply.completion_tokens > reply.reasoning_tokens > 300
        else:
            assert reply.reasoning == "" and set(chat.totals()["left_out"]) >= {"temperature"}


@pytest.mark.parametrize("model", ENDPOINTS)
def test_a_budget_that_ends_within_the_thought(tmp_path, model):
    with providers.serve(ENDPOINTS[model], Mind(ANSWERS)) as endpoint:
        chat = Chat(model, endpoint.url, store=tmp_path / "r.jsonl")
        replies = chat.map(prompts(), max_tokens=100)
    assert {reply.finish_reason for reply in replies} == {"length"}
    if model != "no-parser":  # a thought without an end and without a tag cannot be told from what is said
        assert {reply.text for reply in replies} == {""}
    assert chat.totals()["cut_off"] == endpoint.cut_off == len(ANSWERS)


def test_a_model_of_dashscope_that_is_told_not_to_think(tmp_path):
    with providers.serve(providers.DASHSCOPE, Mind(ANSWERS)) as endpoint:
        chat = Chat("qwen3-32b", endpoint.url, store=tmp_path / "r.jsonl", extra={"enable_thinking": False})
        (reply, *_) = chat.map(prompts(), max_tokens=100)
    assert reply.reasoning == "" and reply.text == solution("0", 0)


def test_a_key_that_is_wrong_is_not_repeated(tmp_path, monkeypatch):
    with providers.serve(providers.DEEPSEEK, Mind(ANSWERS), key="right-key") as endpoint:
        monkeypatch.setenv("DISTIL_KEYS", f"{endpoint.host}=MINE")
        monkeypatch.setenv("MINE", "wrong-key")
        with pytest.raises(Exception, match="MINE") as error:
            Chat("deepseek-chat", endpoint.url, store=tmp_path / "r.jsonl").map(prompts(), max_tokens=100)
    assert "wrong-key" not in str(error.value)
    assert set(endpoint.keys) == {"Bearer wrong-key"} and not endpoint.requests


def test_the_providers_refuse_what_the_real_ones_refuse():
    mind, said = Mind(ANSWERS), {"role": "assistant", "content": "0", "reasoning_content": "hm"}
    plain = {"messages": [{"role": "user", "content": "What is 0 plus 0?"}], "max_tokens": 10}
    for body, model, words in (
        (plain, providers.DASHSCOPE["qwq-32b"], "non-streaming"),
        (plain | {"logprobs": True}, providers.DEEPSEEK["deepseek-reasoner"], "logprobs"),
        (plain | {"messages": [said]}, providers.DEEPSEEK["deepseek-reasoner"], "not allowed"),
        (plain, providers.OPENAI["o4-mini"], "max_completion_tokens"),
        (plain | {"max_tokens": 40_000}, providers.VLLM["Qwen/QwQ-32B"], "context length"),
    ):
        with pytest.raises(providers.Refused, match=words):
            providers.check(body, model)
    written = providers.write(plain | {"max_tokens": 10_000}, providers.DEEPSEEK["deepseek-reasoner"], mind)
    assert 2000 <= written.usage["completion_tokens_details"]["reasoning_tokens"] <= 8100
    assert json.dumps(written.usage) and written.finish == "stop"
