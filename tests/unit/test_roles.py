"""Roles: which model is asked at which endpoint, with which key, within which limits; no key reaches another host."""

import json

import pytest
from loopback import Refusal, Said, serve

from distil.llm import keys, roles
from distil.llm.cache import ChatError
from distil.llm.client import Chat
from distil.llm.endpoints import Role, check_endpoint, check_model
from distil.llm.limits import Limits

PROMPTS = [[{"role": "user", "content": f"question {i}"}] for i in range(8)]
HERE = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def alone(project, monkeypatch):
    monkeypatch.setattr("distil.llm.transport.FIRST_BACKOFF", 0.001)
    monkeypatch.setattr(keys, "GONE", {})


def address(endpoint: str) -> str:
    return endpoint.split("/")[2]


@pytest.mark.parametrize(("value", "model", "endpoint"), [
    ("", "v3", HERE),
    ("qwq", "qwq", HERE),
    ("Qwen/QwQ-32B@http://localhost:8000/v1", "Qwen/QwQ-32B", "http://localhost:8000/v1"),
    ("@cf/qwen/qwq@http://localhost:8000/v1", "@cf/qwen/qwq", "http://localhost:8000/v1"),
    ("org/model@vllm", "org/model", "vllm"),
    ("org/model@main", "org/model@main", HERE),
    ("m@recorded:starter", "m", "recorded:starter"),
])  # fmt: skip
def test_a_role_is_a_model_at_an_endpoint(value, model, endpoint, monkeypatch):
    monkeypatch.setattr("distil.llm.endpoints.recording_file", lambda name: name)
    assert roles.read("judge", value, "v3", HERE) == Role("judge", model, endpoint)


@pytest.mark.parametrize(("role", "value", "teacher", "words"), [
    ("judge", "", "", "judge: no model is named; give judge=MODEL"),
    ("judge", "@http://localhost:8000/v1", "v3", "judge: no model is named"),
    ("judge", "http://localhost:8000/v1", "v3", "judge: no model is named"),
    ("judge", "qwq@http://localhost:high/v1", "v3", "judge: endpoint .*: the port is a number"),
    ("judge", "qwq@recorded:nowhere", "v3", "judge: no recording 'nowhere'"),
    ("judge", "none", "v3", "judge=none: only fast_teacher and slow_teacher can be left out"),
    ("slow_teacher", "r1@https://api.deepseek.com/v1", "v3", "slow_teacher: .*needs a key: set .*DEEPSEEK_API_KEY"),
])  # fmt: skip
def test_what_names_nobody_is_found_beforehand(role, value, teacher, words):
    with pytest.raises(ChatError, match=words):
        roles.read(role, value, teacher, HERE)


def test_a_style_that_is_not_asked_for():
    assert roles.read("slow_teacher", "none", "v3", HERE) is None
    with pytest.raises(ChatError, match="slow_teacher=none: there is nobody to ask"):
        roles.chat("slow_teacher", "none", "v3", HERE, None)


@pytest.mark.parametrize(("endpoint", "variable"), [
    ("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    ("https://fakedeepseek.com/v1", "DISTIL_API_KEY"),
    ("https://api.deepseek.com.evil.net/v1", "DISTIL_API_KEY"),
    ("https://openai.azure.com/v1", "DISTIL_API_KEY"),
    ("https://models.example.com/v1", "MINE"),
    ("https://models.example.com:8443/v1", "OTHERS"),
    ("http://127.0.0.1:8000/v1", None),
    ("http://[::1]:8001/v1", "MINE"),
])  # fmt: skip
def test_a_key_belongs_to_a_host(endpoint, variable, monkeypatch):
    monkeypatch.setenv("DISTIL_KEYS", "models.example.com=MINE, models.example.com:8443=OTHERS,[::1]:8001=MINE,")
    assert keys.key_variable(endpoint) == variable
    if variable is None:
        assert keys.api_key(endpoint) == "none"
        return
    for name in {known["key"] for known in keys.PROVIDERS.values()} | {"DISTIL_API_KEY", "MINE", "OTHERS"}:
        monkeypatch.setenv(name, f"key-of-{name}")
    assert keys.api_key(endpoint) == f"key-of-{variable}"
    monkeypatch.delenv(variable)
    with pytest.raises(ChatError, match=f"needs a key: set the environment variable {variable}"):
        check_endpoint(endpoint)


@pytest.mark.parametrize("text", ["api.example.com", "api.example.com=sk-very-secret", "=MINE", "a=B=C"])
def test_a_mistyped_list_of_keys_is_not_repeated(text, monkeypatch):
    monkeypatch.setenv("DISTIL_KEYS", f"localhost=MINE,{text}")
    with pytest.raises(ChatError, match="DISTIL_KEYS, entry 2: give HOST=VARIABLE") as caught:
        check_endpoint(HERE)
    assert "secret" not in str(caught.value)


def test_four_roles_with_four_keys_and_none_at_a_wrong_host(monkeypatch, tmp_path):
    with (
        serve(lambda body: "one") as one,
        serve(lambda body: "two") as two,
        serve(lambda body: "three") as three,
        serve(lambda body: "four") as four,
    ):
        servers = dict(zip(roles.ROLES, (one, two, three, four), strict=True))
        named = [f"{address(endpoint)}={role.upper()}_KEY" for role, (endpoint, _) in servers.items()]
        monkeypatch.setenv("DISTIL_KEYS", ",".join(named))
        for role, (endpoint, _) in servers.items():
            with pytest.raises(ChatError, match=f"{role}: .*needs a key: set .*{role.upper()}_KEY"):
                roles.read(role, f"m@{endpoint}", "", "")
            monkeypatch.setenv(f"{role.upper()}_KEY", f"secret-of-{role}")
        for role, (endpoint, _) in servers.items():
            chat = roles.chat(role, f"m@{endpoint}", "", "", tmp_path / "s.jsonl")
            assert chat.role == role and len(chat.map(PROMPTS[:2], max_tokens=roles.ROLES.index(role) + 5)) == 2
        for role, (_, seen) in servers.items():
            assert [h["Authorization"] for h in seen.headers] == [f"Bearer secret-of-{role}"] * 2


def test_one_key_does_not_serve_two_hosts(monkeypatch):
    monkeypatch.setenv("DISTIL_API_KEY", "very-secret")
    two = [roles.read("judge", f"m@https://{host}/v1", "", "") for host in ("a.example.com", "b.example.com")]
    roles.check([two[0], two[0], None])
    with pytest.raises(
        ChatError, match="DISTIL_API_KEY serves one host, .*a.example.com and b.example.com.*DISTIL_KEYS="
    ):
        roles.check(two)
    Chat("m", two[0].endpoint)
    with pytest.raises(ChatError, match="would go to a.example.com and b.example.com"):
        Chat("m", two[1].endpoint)
    monkeypatch.setenv("DISTIL_KEYS", "b.example.com=DISTIL_API_KEY_B")
    monkeypatch.setenv("DISTIL_API_KEY_B", "another")
    roles.check([*two])


def test_a_redirect_takes_no_key_along(monkeypatch):
    monkeypatch.setenv("MINE", "very-secret")
    with serve(lambda body: "thanks") as (elsewhere, stolen):

        def answer(body):
            raise Refusal(307, "over there", location=f"{elsewhere}/chat/completions")

        with serve(answer, location=f"{elsewhere}/models") as (endpoint, _):
            monkeypatch.setenv("DISTIL_KEYS", f"{address(endpoint)}=MINE")
            with pytest.raises(ChatError, match="HTTP 307"):
                Chat("m", endpoint).map(PROMPTS[:1], max_tokens=5)
            check_model(Role("judge", "m", endpoint), 5)
    assert stolen.headers == []


def test_a_key_passes_no_proxy_in_the_clear(monkeypatch):
    monkeypatch.setenv("DISTIL_API_KEY", "very-secret")
    with serve(lambda body: "by proxy") as (proxy, seen):
        monkeypatch.setenv("http_proxy", proxy.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(ChatError, match="the key would pass a proxy unencrypted; give https://"):
            check_endpoint("http://teacher.invalid/v1")
        with pytest.raises(ChatError, match="the key would pass a proxy unencrypted"):
            Chat("m", "http://teacher.invalid/v1")
        assert seen.headers == []
        check_endpoint("https://teacher.invalid/v1")
    monkeypatch.setenv("DEEPSEEK_API_KEY", "another")
    with pytest.raises(ChatError, match="unencrypted; give https://"):
        check_endpoint("http://api.deepseek.com/v1")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_named_by_its_variable_and_every_key_is_masked(status, monkeypatch):
    monkeypatch.setenv("MINE", "very-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "of-somebody-else")

    def answer(body):
        raise Refusal(status, "wrong: very-secret, of-somebody-else")

    with serve(answer) as (endpoint, _):
        with pytest.raises(
            ChatError, match=rf"no key is sent to this machine.*DISTIL_KEYS={address(endpoint)}=VARIABLE"
        ):
            Chat("m", endpoint).map(PROMPTS[:1], max_tokens=5)
        monkeypatch.setenv("DISTIL_KEYS", f"{address(endpoint)}=MINE")
        with pytest.raises(ChatError, match=rf"wrong: \*\*\*, \*\*\*.*sent to {address(endpoint)} is .*MINE"):
            Chat("m", endpoint).map(PROMPTS[:1], max_tokens=5)


def test_a_role_has_limits_of_its_own(monkeypatch):
    monkeypatch.setenv("DISTIL_RPM", "60")
    monkeypatch.setenv("DISTIL_PRICE", "1/2")
    monkeypatch.setenv("DISTIL_JUDGE_PRICE", "3/4")
    monkeypatch.setenv("DISTIL_JUDGE_EXTRA", '{"enable_thinking": true}')
    assert Limits.read(role="judge") == Limits(rpm=60, price=(3, 4), extra={"enable_thinking": True})
    assert Limits.read(role="rewriter") == Limits(rpm=60, price=(1, 2))
    assert Chat("m", HERE, role="judge").limits.price == (3, 4)
    monkeypatch.setenv("DISTIL_JUDGE_RPM", "many")
    with pytest.raises(ChatError, match="judge: DISTIL_JUDGE_RPM='many': give requests a minute"):
        roles.read("judge", "", "m", HERE)
    monkeypatch.setenv("DISTIL_SLOW_TEACHER_MAX_COST", "5")
    with pytest.raises(ChatError, match="DISTIL_SLOW_TEACHER_MAX_COST: .* whole run; set DISTIL_MAX_COST"):
        roles.read("slow_teacher", "", "m", HERE)


def test_max_cost_bounds_a_run_of_several_roles_with_several_prices(monkeypatch, tmp_path):
    store = tmp_path / "s.jsonl"
    monkeypatch.setenv("DISTIL_MAX_COST", "10")
    monkeypatch.setenv("DISTIL_FAST_TEACHER_PRICE", "0/100000")  # 1 dollar for 10 tokens
    monkeypatch.setenv("DISTIL_JUDGE_PRICE", "0/200000")
    with pytest.raises(ChatError, match="DISTIL_MAX_COST needs DISTIL_PRICE or DISTIL_REWRITER_PRICE"):
        roles.read("rewriter", "", "m", HERE)
    with serve(lambda body: Said("yes", tokens=10)) as (endpoint, seen):
        roles.chat("fast_teacher", "v3", "", endpoint, store).map(PROMPTS[:5], max_tokens=10)
        judge = roles.chat("judge", "qwq", "", endpoint, store)
        with pytest.raises(ChatError, match="have cost 9.0000 dollars"):
            judge.map(PROMPTS, max_tokens=10)
        assert len(seen) == 5 + 2 and judge.totals()["dollars"] == 0, "counted when a map has ended"
        lines = [json.loads(line) for line in store.read_text().splitlines()]
        assert [line["dollars"] for line in lines] == [1, 1, 1, 1, 1, 2, 2]
        assert all(list(line)[:2] == ["key", "dollars"] for line in lines)
        monkeypatch.setenv("DISTIL_JUDGE_PRICE", "0/100")  # what was paid, was paid
        again = roles.chat("judge", "qwq", "", endpoint, store)
        again.map(PROMPTS, max_tokens=10)
        assert again.budget.spent == pytest.approx(9 + 6 * 0.001)
        unpriced = [{name: value for name, value in line.items() if name != "dollars"} for line in lines]
        store.write_text("".join(json.dumps(line) + "\n" for line in unpriced))
        old = roles.chat("judge", "qwq", "", endpoint, store)
        old.map(PROMPTS[:3], max_tokens=10)
        assert old.budget.spent == pytest.approx(3 * 0.001), "its own model's at its own price; no other's"


def test_a_budget_over_what_the_model_can_is_found_beforehand():
    with pytest.raises(ChatError, match="judge=deepseek-chat at .* 8192 tokens at most, .* 10000"):
        check_model(Role("judge", "deepseek-chat", "https://api.deepseek.com/v1"), 10000)
    with serve(lambda body: "", models=[{"id": "qwq", "max_model_len": 4096}, {"id": "v3"}]) as (endpoint, _):
        check_model(Role("judge", "qwq", endpoint), 4095)
        check_model(Role("judge", "v3", endpoint), 10**6)
        with pytest.raises(ChatError, match="judge=qwq at .* a context of 4096 tokens.* asked for 4096"):
            check_model(Role("judge", "qwq", endpoint), 4096)
        with pytest.raises(ChatError, match="judge=qwq-32b at .*: no such model there; it serves qwq"):
            check_model(Role("judge", "qwq-32b", endpoint), 10)


def test_a_server_that_does_not_say_is_no_error(monkeypatch):
    monkeypatch.setenv("MINE", "very-secret")
    role = Role("judge", "m", HERE)
    check_model(role, 10)  # nobody listens
    with serve(lambda body: "") as (endpoint, seen):
        monkeypatch.setenv("DISTIL_KEYS", f"{address(endpoint)}=MINE")
        check_model(Role("judge", "m", endpoint), 10)  # no such route
        assert [headers["Authorization"] for headers in seen.headers] == ["Bearer very-secret"]
    for rows in ([{"name": "m"}], ["m"], "m"):
        with serve(lambda body: "", models=rows) as (endpoint, _):
            check_model(Role("judge", "m", endpoint), 10)
    check_model(Role("judge", "m", "vllm"), 10)


@pytest.mark.parametrize("model", ["claude-3@20240229", "org/model@main", "gpt@2.5"])
def test_an_at_sign_may_belong_to_a_model(model, monkeypatch):
    assert roles.read("judge", model, "t", "recorded:qwen2.5-coder-1.5b").model == model
