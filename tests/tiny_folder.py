"""A whole Hugging Face folder, small: a Qwen-like model with random weights, a learned tokenizer and a chat template."""

import json
from pathlib import Path

import jax
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from rljax import pretrained, transformer
from rljax.text import hf_tokenizer

LINES = (
    "Ann has 12 clips and gets 25 more. How many? She has 12+25 = 37 clips.",
    "Question: Answer: #### 0 1 2 3 4 5 6 7 8 9 please reason step by step and put your final answer within boxed",
)
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer_files(chat: str = CHAT) -> dict[str, str]:
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    library.train_from_iterator(LINES, trainer)
    library.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"])
    ids = {text: library.token_to_id(text) for text in ("<|endoftext|>", "<|im_end|>")}
    about = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": chat}
    ends = {"eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]], "pad_token_id": ids["<|endoftext|>"]}
    return {
        "tokenizer.json": library.to_str(),
        "tokenizer_config.json": json.dumps(about),
        "generation_config.json": json.dumps(ends),
    }


def tokenizer(chat: str = CHAT) -> hf_tokenizer.FolderTokenizer:
    return hf_tokenizer.FolderTokenizer(tuple(tokenizer_files(chat).items()))


def config(**changes) -> transformer.Config:
    # the head has more rows than the tokenizer ids, as real ones do
    given = dict(vocab_size=320, layers=2, width=32, heads=4, kv_heads=2, head_width=8, ff_width=48, max_length=512)
    return transformer.Config(**(given | dict(qkv_bias=True, tied_head=True) | changes))


def make(path: Path, **changes) -> Path:
    model = config(**changes)
    pretrained.save(path, model, transformer.init(model, jax.random.key(0)), tokenizer())
    return path
