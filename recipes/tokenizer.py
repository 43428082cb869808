"""A small byte-level BPE in CLIP's format, learned from the captions: the same files serve open_clip and transformers."""

import random
from pathlib import Path

import pandas as pd
from transformers import CLIPTokenizer

from recipes.captions import caption

CONTEXT = 32


def learn(table: pd.DataFrame, folder: Path, size: int = 4096) -> CLIPTokenizer:
    """Padding is id 0, the end of text the highest id: both libraries' pooling rules then pick the same token."""
    rng = random.Random(0)
    corpus = [caption(row, rng) for row in table[table["split"] != "test"].itertuples() for _ in range(2)]
    base = _tokenizer(_alphabet(), [])
    learned = base.backend_tokenizer
    from tokenizers.trainers import BpeTrainer

    # Letters are numbered beforehand, as special tokens: the trainer would number those at the ends of words in the order of a hash table,
    # another one each time, and breaks ties between pairs of equal count by these numbers.
    trainer = BpeTrainer(vocab_size=size - 3, end_of_word_suffix="</w>", special_tokens=_alphabet(), show_progress=False)
    learned.train_from_iterator(corpus, trainer)
    import json

    merges = [tuple(m) if not isinstance(m, str) else tuple(m.split(" ")) for m in json.loads(learned.to_str())["model"]["merges"]]
    merges = merges[: size - 3 - len(_alphabet())]
    tokenizer = _tokenizer(_alphabet() + ["".join(pair) for pair in merges], merges)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _bytes() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _alphabet() -> list[str]:
    return _bytes() + [symbol + "</w>" for symbol in _bytes()]


def _tokenizer(tokens: list[str], merges: list[tuple[str, str]]) -> CLIPTokenizer:
    ordered = ["<|pad|>", *dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(ordered)},
        merges=merges,
        pad_token="<|pad|>",
        unk_token="<|endoftext|>",
        model_max_length=CONTEXT,
    )
