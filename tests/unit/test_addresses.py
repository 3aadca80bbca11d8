"""Addresses as people paste them, the proxies of the environment, and what an endpoint's failures say to do."""

import socket
from contextlib import contextmanager

import pytest
from loopback import Refusal, serve

from distil import cli
from distil.llm import addresses, roles
from distil.llm.cache import ChatError
from distil.llm.client import Chat
from distil.llm.endpoints import Role, check_endpoint, check_model

PROMPTS = [[{"role": "user", "content": f"question {i}"}] for i in range(4)]


@pytest.fixture(autouse=True)
def impatient(project, monkeypatch):
    monkeypatch.setattr("distil.llm.transport.FIRST_BACKOFF", 0.001)
    monkeypatch.setenv("DISTIL_API_KEY", "none")
    for name in ("http", "https", "all", "no"):
        for variable in (f"{name}_proxy", f"{name}_proxy".upper()):
            monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(("pasted", "meant"), [
    ("https://api.deepseek.com/v1/", "https://api.deepseek.com/v1"),
    (" http://localhost:8000/v1/chat/completions\n", "http://localhost:8000/v1"),
    ("https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions/",
     "https://dashscope.aliyuncs.com/compatible-mode/v1"),
    ("https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-06-01",
     "https://x.openai.azure.com/openai/deployments/d?api-version=2024-06-01"),
    ("recorded:starter ", "recorded:starter"),
    ("vllm", "vllm"),
])  # fmt: skip
def test_an_address_is_taken_as_it_is_pasted(pasted, meant):
    assert addresses.tidy(pasted) == meant == addresses.tidy(meant)
    url = addresses.url_of(meant, "/models")
    assert "/models" in url and url.partition("?")[0].endswith("/models")


def test_pasted_addresses_reach_the_server():
    with serve(lambda body: "yes") as (endpoint, seen):
        for tail in ("/", "/chat/completions", "/chat/completions/ ", "?api-version=2024-06-01"):
            chat = Chat("m", f" {endpoint}{tail}")
            assert chat.map(PROMPTS[:1], max_tokens=5)[0].text == "yes"
            assert roles.read("judge", f"m@{endpoint}{tail}", "", "").endpoint == chat.endpoint
    assert [headers.get("api-key") for headers in seen.headers] == [None, None, None, "none"]
    with pytest.raises(ChatError, match="or a URL such as http://localhost:8000/v1"):
        check_endpoint("localhost:8000/v1")
    with pytest.raises(ChatError, match="or a URL such as https://api.siliconflow.cn/v1"):
        check_endpoint("api.siliconflow.cn/v1")


def test_an_address_without_v1_is_found_before_work_begins_and_when_it_is_asked():
    def answer(body):
        raise Refusal(404, "Not Found")

    with serve(answer, models=[{"id": "m"}]) as (endpoint, seen):
        short = endpoint.removesuffix("/v1")
        with pytest.raises(ChatError, match=f"there is no API at that address, but at {endpoint}: give that"):
            check_model(Role("judge", "m", short), 5)
        check_model(Role("judge", "m", endpoint), 5)
        with pytest.raises(ChatError, match=f"HTTP 404: Not Found.*as a rule {endpoint}"):
            Chat("m", short, concurrency=1).map(PROMPTS, max_tokens=5)
    assert len(seen) == 1


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.1.1", "OWN"])
def test_no_proxy_takes_what_is_meant_for_this_machine(variable, host, monkeypatch):
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setattr(socket, "gethostname", lambda: "Node-7.cluster")
    assert addresses.proxy_of("http://other.example.com/v1") == "http://127.0.0.1:9"
    for name in ("node-7", "NODE-7.cluster", "[::1]", "0.0.0.0", "x.localhost") if host == "OWN" else (host,):
        assert addresses.proxy_of(f"http://{name}:8000/v1") is None
    if host in ("localhost", "127.0.0.1"):
        with serve(lambda body: "here") as (endpoint, _):
            chat = Chat("m", endpoint.replace("127.0.0.1", host))
            assert chat.map(PROMPTS[:1], max_tokens=5)[0].text == "here"


def test_other_hosts_are_reached_by_any_proxy_that_is_named(monkeypatch):
    with serve(lambda body: "by proxy") as (proxy, _):
        monkeypatch.setenv("all_proxy", proxy.removeprefix("http://").removesuffix("/v1"))
        assert Chat("m", "http://teacher.invalid/v1").map(PROMPTS[:1], max_tokens=5)[0].text == "by proxy"
    monkeypatch.setenv("no_proxy", "teacher.invalid:80,plain.invalid")
    assert addresses.proxy_of("http://teacher.invalid:80/v1") is addresses.proxy_of("http://plain.invalid/v1") is None
    monkeypatch.setenv("all_proxy", "socks5://user:very-secret@127.0.0.1:1080")
    with pytest.raises(ChatError, match="a proxy of socks5://, and only those of http") as error:
        check_endpoint("https://teacher.invalid/v1")
    assert "very-secret" not in str(error.value)


@pytest.mark.parametrize(("endpoint", "who"), [
    ("https://api.deepseek.com/v1", "api.deepseek.com"),
    ("https://API.deepseek.com:8443", "api.deepseek.com"),
    ("http://127.0.0.1:8000/v1", "own"),
    ("http://localhost:1/v1", "own"),
    ("http://10.1.2.3:8000/v1", "own"),
    ("http://gpu-node-12:8000/v1", "own"),
    ("http://mac.local/v1", "own"),
    ("http://8.8.8.8/v1", "8.8.8.8"),
    ("vllm", "own"),
    ("recorded:starter", ""),
])  # fmt: skip
def test_who_answers(endpoint, who):
    assert addresses.answerer(endpoint) == who


@pytest.mark.parametrize(("status", "words", "advice"), [
    (400, "This model's maximum context length is 4096 tokens", "lower what its answers may have"),
    (400, "unknown field best_of", r"""left out by DISTIL_EXTRA='\{"NAME": null\}'"""),
    (400, "Arrearage: Access denied", "top it up"),
    (401, "bad key", "DISTIL_KEYS="),
    (402, "Insufficient Balance", "top it up"),
    (403, "not in your region", "may not use this model"),
    (404, "The model `m` does not exist", "name a model that is listed at .*/v1/models"),
    (404, "page not found", "there is no API at this address"),
    (413, "request entity", "lower what its answers may have"),
    (422, "extra fields not permitted", "DISTIL_EXTRA"),
    (302, "", "it sends elsewhere"),
    (429, "You exceeded your current quota: insufficient_quota", "top it up"),
    (429, "slower", "lower DISTIL_CONCURRENCY, or set DISTIL_RPM"),
    (500, "oops", "give the command again later"),
    (503, "busy", "give the command again later"),
])  # fmt: skip
def test_a_refusal_says_what_to_do(status, words, advice):
    def answer(body):
        raise Refusal(status, words)

    with serve(answer) as (endpoint, _), pytest.raises(ChatError, match=f"HTTP {status}.*{advice}"):
        Chat("m", endpoint, concurrency=1).map(PROMPTS[:1], max_tokens=5)


@contextmanager
def dropping():
    """A server that takes connections and says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        listener.close()


def test_a_connection_that_fails_says_what_to_do(monkeypatch):
    def why(endpoint: str, **limits) -> str:
        with pytest.raises(ChatError) as error:
            Chat("m", endpoint, **limits).map(PROMPTS[:1], max_tokens=5)
        return str(error.value)

    assert "nobody listens there" in why("http://127.0.0.1:9/v1")
    assert "the name teacher.invalid is not known here" in why("http://teacher.invalid/v1")
    with dropping() as endpoint:
        assert "nothing came for 0.1 s (6 attempts); if the model thinks longer" in why(endpoint, timeout=0.1)
    with serve(lambda body: "yes") as (endpoint, _):
        assert "does the server speak http://?" in why(endpoint.replace("http://", "https://"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert "the proxy of the environment does not answer" in why("http://teacher.invalid/v1")


def test_a_dry_run_says_whether_anybody_listens(capsys):
    with dropping() as endpoint:
        roles_at = ["fast_teacher=m@http://127.0.0.1:9/v1", "rewriter=m@http://teacher.invalid/v1"]
        sets = [word for text in (f"endpoint={endpoint}", "01.teacher=m", *roles_at) for word in ("--set", text)]
        assert cli.main(["run", "--profile", "smoke", "--to", "03", "--dry-run", *sets]) == 0
    told = capsys.readouterr().out
    assert f"{endpoint}: somebody listens there\n" in told
    assert "http://127.0.0.1:9/v1: nobody can be reached there: Connection refused\n" in told
    assert "http://teacher.invalid/v1: nobody can be reached there: the name teacher.invalid is not known" in told
