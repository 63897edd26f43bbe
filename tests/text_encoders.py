"""Tiny tokenizers and text encoders of the kinds that the families read with, random weights and all."""

import string

WIDTH = 16  # of every text encoder
TINY = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = "a photo of the red blue white circle ring rings cross square two three".split()
LETTERS = [*string.ascii_letters, *string.digits, *".,:;-<>|'_/"]


def new_clip(kind):
    """A CLIP's tokenizer and text encoder; `kind` is the encoder's class."""
    from transformers import CLIPTextConfig, CLIPTokenizer

    names = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *[f"{letter}</w>" for letter in LETTERS]]
    tokenizer = CLIPTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[], model_max_length=24)
    config = CLIPTextConfig(
        vocab_size=len(names),
        **TINY,
        max_position_embeddings=24,
        projection_dim=WIDTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return tokenizer, kind(config)


def new_t5(width):
    """A T5's tokenizer and encoder."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = [*[(f"\u2581{word}", -1.0) for word in WORDS], ("\u2581", -2.0), *[(letter, -5.0) for letter in LETTERS]]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    tokenizer = T5Tokenizer(vocab=special + pieces, extra_ids=0, model_max_length=32)
    config = T5Config(
        vocab_size=len(special + pieces),
        d_model=width,
        d_kv=8,
        d_ff=width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return tokenizer, T5EncoderModel(config)


def new_qwen_tokenizer(template):
    """One token a word, as the real one has for the words of the template."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    empty = Qwen2Tokenizer(vocab={name: i for i, name in enumerate(special)}, merges=[])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return empty.train_new_from_iterator(
        [template, " ".join(WORDS)], 1000, new_special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )


def new_gemma(longest, read=""):
    """A Gemma 2's tokenizer, of letters and of the words of a text that it has read, and the model."""
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *LETTERS]
    tokenizer = GemmaTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[], model_max_length=longest)
    if read:
        words = [f" {word}" for word in read.split()]
        tokenizer = tokenizer.train_new_from_iterator(words, 1000, initial_alphabet=LETTERS, show_progress=False)
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        **TINY,
        num_key_value_heads=1,
        head_dim=8,
    )
    return tokenizer, Gemma2Model(config)
