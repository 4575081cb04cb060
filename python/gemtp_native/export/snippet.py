"""The Python script for Hugging Face transformers."""

from __future__ import annotations

from .configuration import Sampling

_DOC = '"""Completes a prompt. Written for {version}."""'


def transformers_script(
    target: str,
    drafter: str | None,
    depth: int,
    threads: int | None,
    sampling: Sampling,
    version: str,
) -> str:
    """Returns the script. depth: drafts per round, if there is a drafter."""
    s = sampling
    lines = [
        _DOC.format(version=version),
        "",
        "import sys",
        "",
        "import torch",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
    ]
    if threads is not None:
        lines += [f"torch.set_num_threads({threads})"]
    lines += [
        f"tokenizer = AutoTokenizer.from_pretrained({target!r})",
        f'target = AutoModelForCausalLM.from_pretrained({target!r}, dtype="auto")',
    ]
    options = [f"max_new_tokens={s.max_tokens}"]
    if drafter is not None:
        lines += [
            f'drafter = AutoModelForCausalLM.from_pretrained({drafter!r}, dtype="auto")',
            f"drafter.generation_config.num_assistant_tokens = {depth}",
            'drafter.generation_config.num_assistant_tokens_schedule = "constant"',
        ]
        options += ["assistant_model=drafter"]
    if s.temperature > 0:
        options += [
            "do_sample=True",
            f"temperature={s.temperature!r}",
            f"top_k={s.top_k}",
            f"top_p={s.top_p!r}",
        ]
        if s.min_p:
            options += [f"min_p={s.min_p!r}"]
    else:
        options += ["do_sample=False"]
    options += [f"repetition_penalty={s.repetition_penalty!r}"]
    lines += [
        "",
        'prompt = sys.argv[1] if len(sys.argv) > 1 else "Once upon a time"',
        'inputs = tokenizer(prompt, return_tensors="pt")',
        f"torch.manual_seed({s.seed})",
        "output = target.generate(",
        "    **inputs,",
        *(f"    {option}," for option in options),
        ")",
        "print(tokenizer.decode(output[0], skip_special_tokens=True))",
        "",
    ]
    return "\n".join(lines)
