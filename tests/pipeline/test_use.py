"""A published student as its users meet it: the code of its card, run where nothing of this project is installed."""

import ast
import json
import os
import re
import subprocess
import sys
import venv

import pytest
import small_run
from conftest import ROOT

from distil.cli import main
from distil.llm.prompts import student_messages
from distil.models.student import encode_prompt, generate, load, load_tokenizer
from distil.models.weights import TINY, resolve
from distil.publish import upload

# what a machine lacks that has only torch and transformers, as far as this project brings it
BARE = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in MISSING else super().find_spec(name, path, target)

MISSING = {missing!r}
sys.meta_path = [f for f in sys.meta_path if f is not PathFinder and "__editable__" not in repr(f)] + [Without]
for name in MISSING:
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(name + " is there")
"""
ONLY_TRANSFORMERS = ["distil", "peft", "trl", "accelerate", "datasets", "gguf", "papermill", "reasoning_gym"]


def code(card: str) -> str:
    """The Python of a card."""
    return re.search(r"(?s)```python\n(.*?)```", card).group(1)


def run(program: str, home, url: str, missing: list[str], python: str = sys.executable) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "DISTIL_", "PYTHON"))}
    environment |= {"HF_ENDPOINT": url, "HF_TOKEN": os.environ["HF_TOKEN"], "HF_HOME": str(home / "elsewhere")}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [python, "-c", (BARE.format(missing=missing) if missing else "") + program]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ours(folder: str) -> tuple[str, list[int], int]:
    """What 07 measured: the answer, the prompt's tokens, the end token."""
    tokenizer, messages = load_tokenizer(folder), student_messages("QUESTION")
    (row,) = next(generate(load(folder), tokenizer, [messages], 24, 1))
    return row.text, encode_prompt(tokenizer, messages), tokenizer.eos_token_id


TELL = "\nprint('#', inputs['input_ids'][0].tolist(), model.generation_config.eos_token_id)"


def test_merged_weights_answer_with_transformers_alone(server, home):
    assert main(["push", "fast,merged", "me/tiny", "--run", "r"]) == 0
    card = server.repositories["model", "me/tiny-merged"]["files"]["README.md"].decode()
    said = run(code(card) + TELL, home, server.url, ONLY_TRANSFORMERS)
    answer, _, facts = said.rpartition("# ")
    text, prompt, end = ours(str(home / "artifacts/r/04_finetune/fast"))
    assert answer.strip() == text, "the answer that was measured"
    assert facts.split("] ") == [str(prompt)[:-1], f"{end}\n"], "the template and the end token of training"


def test_an_adapter_answers_with_peft(server, home):
    (planned,) = upload.plan("r", "fast", "me/tiny", small_run.STUDENTS)
    config = planned.folder / "adapter_config.json"
    changed = json.loads(config.read_text()) | {"base_model_name_or_path": resolve(TINY)}  # it is on no Hub
    config.unlink()  # a link to the run's own
    config.write_text(json.dumps(changed))
    program = code(planned.card).replace("me/tiny", str(planned.folder))
    missing = [name for name in ONLY_TRANSFORMERS if name not in ("peft", "accelerate")]
    assert run(program, home, server.url, missing).strip() == ours(str(home / "artifacts/r/04_finetune/fast"))[0]


def test_the_reward_model_grades(server, home):
    from distil.train.reward_model import HEADS, RewardModel

    assert main(["push", "reward", "me/tiny", "--run", "r"]) == 0
    card = server.repositories["model", "me/tiny-reward"]["files"]["README.md"].decode()
    given = f"messages, chain = {student_messages('2 + 2?')!r}, 'It is 4.'\n"
    said = run(given + code(card) + "\nprint(grades)", home, server.url, ONLY_TRANSFORMERS)
    theirs = ast.literal_eval(said)
    graded = RewardModel(str(home / "artifacts/r/06_reinforce/reward_model")).grades(
        [student_messages("2 + 2?")], ["It is 4."]
    )[0]
    for (head, top), own in zip(HEADS.items(), graded, strict=True):
        assert top * min(max(theirs[head], 0), 1) == pytest.approx(float(own), abs=0.02)


@pytest.mark.network  # it installs torch from the package index
@pytest.mark.slow
def test_in_an_environment_with_nothing_but_torch_and_transformers(server, home):
    assert main(["push", "fast,merged", "me/tiny", "--run", "r"]) == 0
    venv.create(home / "bare", with_pip=True)
    python = str(home / "bare/bin/python")
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", str(ROOT / "requirements.lock")]
    subprocess.run([*pip, "torch", "transformers"], check=True, capture_output=True, text=True)
    card = server.repositories["model", "me/tiny-merged"]["files"]["README.md"].decode()
    said = run(code(card), home, server.url, [], python)
    assert said.strip() == ours(str(home / "artifacts/r/04_finetune/fast"))[0]


@pytest.mark.slow
def test_the_cpu_profiles_student_has_a_tokenizer_that_llama_cpp_can_take_over(tmp_path, monkeypatch):
    """With byte fallback its converter takes it for another kind of tokenizer, and llama.cpp dies of the result."""
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path))
    folder = resolve("HuggingFaceTB/SmolLM2-135M-Instruct")
    with open(os.path.join(folder, "tokenizer.json")) as handle:
        assert json.load(handle)["model"]["byte_fallback"] is False
