"""Rows for tests: what a test does not care about has a value here."""

from __future__ import annotations

from pathlib import Path

from distil.workspace.rows import Chain, Problem, TrainingRow


def a_problem(**fields) -> Problem:
    """A problem with a text as its answer, or with other `fields`."""
    usual = {"id": "p", "domain": "test", "task": "sum", "question": "", "answer": "", "verifier": "exact"}
    return Problem(**(usual | {"source": "a test"} | fields))


def a_chain(**fields) -> Chain:
    """A fast chain for the problem `p`, or with other `fields`."""
    usual = {"id": "c", "problem_id": "p", "style": "fast", "thought": "", "solution": "", "teacher": "m"}
    return Chain(**(usual | {"n_tokens": 9, "finish_reason": "stop", "correct": True} | fields))


def a_training_row(question: str, output: str, problem_id: str = "p") -> TrainingRow:
    """What a student is taught to answer to a question."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": output}]
    return TrainingRow(instruction=question, output=output, messages=messages, problem_id=problem_id)


# as the tokenizers of these families are: special tokens, those of a name, whether a BOS comes before every text
LLAMA = {
    "tokens": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "named": {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    "template": "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    "end": "<|eot_id|>",
}
GEMMA = {
    "tokens": ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
    "named": {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
    "template": "{{ bos_token }}{% for m in messages %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "end": "<end_of_turn>",
}
PHI = {
    "tokens": ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"],
    "named": {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
    "template": "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}",
    "end": "<|end|>",
}
GPT2 = {  # of its own it has no template
    "tokens": ["<|endoftext|>"],
    "named": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    "template": "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
    "end": "<|endoftext|>",
}


def a_student(folder: Path, like: dict) -> str:
    """A tiny untrained model with the special tokens and the chat template of a family; returns its folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocab = like["tokens"] + sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocab)}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens(like["tokens"])
    bos = like["named"].get("bos_token")
    if bos and bos != like["named"]["eos_token"]:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocab.index(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **like["named"])
    tokenizer.chat_template = like["template"]
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {f"{name}_id": vocab.index(token) for name, token in like["named"].items()}
    config = LlamaConfig(vocab_size=len(vocab), num_key_value_heads=2, tie_word_embeddings=True, **sizes, **ids)
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # the head is tied to them: at their usual size no token could ever become likely
        model.get_input_embeddings().weight.mul_(25)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
