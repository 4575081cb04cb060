"""A model with a scripted reply: in a chat it thinks, calls a tool, and answers when it gets the
tool's result. Its head maps each token to the next one of the script.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gguf_bytes import F32, I32, STRING, T_F32, T_Q4_0, U32, Tensor, random_tensor
from tiny_files import CONTROL, HIDDEN, NORMAL, PATTERN, PER_LAYER, TOKENS, TYPES, sound_target

MARKS = ["<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<tool_response|>", "<|tool>"]
MARKS += ["<tool|>", '<|"|>']
WORDS = ["thought\nadd them", " first", "call:add{", "a:2,", "b:3", "}", "The", "▁sum", "▁is", "▁5"]
WORDS += ["."]
CHAINS = [
    ["\n", "<|channel>", "thought\nadd them", " first", "<channel|>"],  # thinking
    ["<channel|>", "<|tool_call>", "call:add{", "a:2,", "b:3", "}", "<tool_call|>"],
    ["<tool_call|>", "<|tool_response>"],  # which ends a generation
    ["<tool_response|>", "The", "▁sum", "▁is", "▁5", ".", "<turn|>"],
]
ANSWER = "The sum is 5."
LOGIT = 20.0


def scripted_model(path: Path) -> Path:
    tokens = [*TOKENS, *MARKS, *WORDS]
    g = sound_target()
    random = np.random.default_rng(7)
    g.put("gemma4.context_length", U32, 2048)
    g.put_array("tokenizer.ggml.tokens", STRING, tokens)
    g.put_array("tokenizer.ggml.scores", F32, [-1000.0] * len(tokens))
    types = [*TYPES, *[CONTROL] * len(MARKS), *[NORMAL] * len(WORDS)]
    g.put_array("tokenizer.ggml.token_type", I32, types)

    embedding = random.standard_normal((len(tokens), HIDDEN)).astype(np.float32)
    embedding *= HIDDEN**0.5 / np.linalg.norm(embedding, axis=1, keepdims=True)
    head = 0.01 * random.standard_normal(embedding.shape).astype(np.float32)
    for chain in CHAINS:
        for before, after in zip(chain, chain[1:], strict=False):
            head[tokens.index(after)] += embedding[tokens.index(before)] * LOGIT / HIDDEN
    g.drop("token_embd.weight")
    g.drop("per_layer_token_embd.weight")
    for name, values in (("token_embd.weight", embedding), ("output.weight", head)):
        g.tensors.append(Tensor(name, [HIDDEN, len(tokens)], T_F32, values.tobytes()))
    shape = [len(PATTERN) * PER_LAYER, len(tokens)]
    g.tensors.append(random_tensor(random, "per_layer_token_embd.weight", shape, T_Q4_0))
    for tensor in g.tensors:  # layers add nothing to the residual
        if str(tensor.name).endswith(("post_attention_norm.weight", "post_ffw_norm.weight")) or (
            str(tensor.name).endswith(".post_norm.weight")
        ):
            tensor.data = bytes(len(tensor.data))
        elif str(tensor.name).endswith(("layer_output_scale.weight", "output_norm.weight")):
            tensor.data = np.ones(len(tensor.data) // 4, np.float32).tobytes()
    path.write_bytes(g.encode())
    return path
