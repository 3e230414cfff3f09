"""Pipelines of transformers that fit into kilobytes: random weights, a tokenizer trained here.

Nothing is fetched. The weights are large enough for answers to differ between texts, which those of
a fresh model hardly do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

TEXTS: Final = (
    "the cat sat on the mat",
    "a dog barked at the cat",
    "good movie , I liked it a lot",
    "terrible film with no plot",
    "we fly to Rome and Oslo in spring",
)
MASK: Final = "[MASK]"
LABELS: Final = ("bad", "so-so", "good")
_MODELS: Final = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "fill-mask": "AutoModelForMaskedLM",
    "feature-extraction": "AutoModel",
}


def tiny_tokenizer(*, max_tokens: int = 32, texts: Sequence[str] = TEXTS) -> Any:
    """A WordPiece tokenizer of BERT's form, with the words of some texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", MASK]
    tokenizer: Any = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106  a token
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_tokens,
        **dict(zip(names, special, strict=True)),
    )


def tiny_pipeline(
    task: str,
    *,
    architecture: str = "bert",
    labels: Sequence[str] = LABELS,
    seed: int = 0,
    layers: int = 1,
    max_tokens: int = 32,
    tokenizer: Any = None,
    **config: Any,
) -> Any:
    """A pipeline for a task.

    Args:
        task: One of those that are served.
        architecture: As transformers calls it.
        labels: Of the classes.
        seed: Other weights for another seed.
        layers: Of the network.
        max_tokens: That tokenizer and network take.
        tokenizer: Another tokenizer than :func:`tiny_tokenizer`.
        config: More for the configuration of the network.
    """
    import torch
    import transformers

    tokenizer = tokenizer or tiny_tokenizer(max_tokens=max_tokens)
    named = dict(enumerate(labels)) if task.endswith("classification") else None
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": max_tokens,
        "initializer_range": 0.5,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
    }
    if named is not None:
        sizes |= {"id2label": named, "label2id": {name: n for n, name in named.items()}}
    settings = transformers.AutoConfig.for_model(architecture, **{**sizes, **config})
    torch.manual_seed(seed)
    model = getattr(transformers, _MODELS[task]).from_config(settings).eval()
    return transformers.pipeline(task, model=model, tokenizer=tokenizer, device="cpu")


def tiny_example(task: str) -> list[str]:
    """Texts that such a pipeline can be logged with."""
    return [f"{text} {MASK}" if task == "fill-mask" else text for text in TEXTS]
