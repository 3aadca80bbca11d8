"""What a student's chat template writes: the prompt, and the token that ends an answer."""

from __future__ import annotations

import json
from pathlib import Path

from distil.models import formats
from distil.workspace.errors import StageError

ASKED = [{"role": "user", "content": "?"}]
ANSWER = "ANSWER"  # stands for one, to see what a template writes around it


def no_template(student: str) -> StageError:
    """The error for a tokenizer without a chat template."""
    return StageError(
        f"{student} has no chat template, as base models often have none: choose the model that was trained to chat "
        "(often named -Instruct), or give a folder with its weights, its tokenizer and a chat_template.jinja"
    )


def check_folder(student: str) -> None:
    """Raise StageError for a student in a folder without a chat template; of a model elsewhere nothing is known yet."""
    folder = Path(student).expanduser()
    config = folder / "tokenizer_config.json"
    if config.exists() and not (folder / "chat_template.jinja").exists():
        if not json.loads(config.read_text(encoding="utf-8")).get("chat_template"):
            raise no_template(student)


def prompt_text(tokenizer, messages: list[dict]) -> str:
    """A chat up to where the student begins to write, special tokens and all: tokenise it without adding any.

    Raises StageError if the tokenizer has no template, or one that cannot render these turns.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise no_template(tokenizer.name_or_path)
    try:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except (ValueError, TemplateError) as error:  # one that knows no system turn, say
        raise StageError(
            f"the chat template of {tokenizer.name_or_path} cannot render what the student is asked "
            f"({', '.join(turn['role'] for turn in messages)}): {error}. Choose a model that was trained to chat; a "
            "system turn can be left out of the prompt `student` (see DISTIL_PROMPTS)"
        ) from None


def answered(tokenizer) -> tuple[str, str] | None:
    """What the template writes (before, after) an answer to a question; None if it cannot render one."""
    from jinja2 import TemplateError

    try:
        turns = [*ASKED, {"role": "assistant", "content": ANSWER}]
        before, found, after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(ANSWER)
    except (ValueError, TemplateError):
        return None
    return (before, after) if found else None


def settle_special_tokens(tokenizer) -> None:
    """Make the token that ends an answer the tokenizer's end token, and let it have one to pad with.

    The template says which ends an answer: the first special token after one. Gemma and Phi have others in their
    tokenizers' files, base models the end of a document. Padding is masked, so that the end token will do where a
    tokenizer has no other.
    """
    _, after = answered(tokenizer) or ("", "")
    added = tokenizer.added_tokens_decoder
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    ends = [i for i in ids if i in added and added[i].content.strip("▁ \t\n")]  # Gemma has line breaks among them
    if ends and ends[0] != tokenizer.eos_token_id:
        tokenizer.eos_token = added[ends[0]].content
    if tokenizer.eos_token is None:
        raise StageError(
            f"{tokenizer.name_or_path} names no token that ends an answer, and its chat template writes none: set "
            "eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token in (None, tokenizer.eos_token):
        kept = {tokenizer.eos_token, tokenizer.bos_token}
        others = [token for token in tokenizer.all_special_tokens if token not in kept]
        others += [token.content for token in added.values() if token.special and token.content not in kept]
        for_it = [token for token in others if "pad" in token.lower()]
        tokenizer.pad_token = (for_it + others + [tokenizer.eos_token])[0]


def stop_ids(model, tokenizer) -> list[int]:
    """The tokens at which an answer ends: that of `settle_special_tokens`, and what the model's publisher names."""
    named = model.generation_config.eos_token_id
    return sorted({tokenizer.eos_token_id, *([] if named is None else named if isinstance(named, list) else [named])})


def check_opening(tokenizer) -> None:
    """Raise StageError if the template begins an answer in another way than a prompt ends.

    Then the student would learn to answer where no answer begins, or to think where no thought is asked for.
    """
    if formats.opened(tokenizer) and formats.pinned(tokenizer) != "think":
        raise StageError(
            f"the chat template of {tokenizer.name_or_path} begins every answer with <think>: give "
            "student_format=think, or choose another model"
        )
    prompt = prompt_text(tokenizer, ASKED)
    before, _ = answered(tokenizer) or ("", "")
    header = before.removeprefix(prompt).strip()
    ignored = prompt == tokenizer.apply_chat_template(ASKED, tokenize=False)
    if ignored and before.startswith(prompt) and header:
        raise StageError(
            f"the chat template of {tokenizer.name_or_path} writes {header!r} before an answer, and not where one is "
            "to begin: end it with {% if add_generation_prompt %}" + header + "{% endif %}, or choose another model"
        )
