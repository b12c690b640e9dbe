"""Names and configuration of Hugging Face's SegFormer, in both directions.

Odd: its LayerNorms have torch's own epsilon of 1e-5, whatever ``layer_norm_eps`` in config.json says. The
file says nothing of the image's size; the preprocessor does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tesela.checkpoints.layout import TensorTable
from tesela.checkpoints.rules import Rule, layer
from tesela.core.errors import WeightsError

#: Our field and theirs, of values for each stage.
_LISTS = {
    "widths": "hidden_sizes",
    "depths": "depths",
    "heads": "num_attention_heads",
    "reductions": "sr_ratios",
    "mlp_ratios": "mlp_ratios",
    "kernels": "patch_sizes",
    "strides": "strides",
}
_NUMBERS = {
    "channels": "num_channels",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "drop_path": "drop_path_rate",
}
SEGFORMER_EPS = 1e-5


def segformer_table(name: str, *, head: str, prefix: str, stages: int) -> TensorTable:
    """The names of a SegFormer's tensors.

    Args:
        name: of the class of transformers.
        head: ``decoder``, ``classifier`` or ``none``.
        prefix: of the body's names.
        stages: how many.
    """
    rules: list[Rule] = []
    for stage in range(stages):
        own, body = f"stages.{stage}.", f"{prefix}encoder."
        block, attention = f"{body}block.{stage}.{{i}}.", f"{body}block.{stage}.{{i}}.attention."
        rules += [
            *layer(f"{own}patches.proj", f"{body}patch_embeddings.{stage}.proj"),
            *layer(f"{own}patches.norm", f"{body}patch_embeddings.{stage}.layer_norm"),
            *layer(f"{own}blocks.{{i}}.norm1", f"{block}layer_norm_1"),
            *layer(f"{own}blocks.{{i}}.norm2", f"{block}layer_norm_2"),
            *layer(f"{own}blocks.{{i}}.attention.query", f"{attention}self.query"),
            *layer(
                f"{own}blocks.{{i}}.attention.key_value", f"{attention}self.key", f"{attention}self.value"
            ),
            *layer(f"{own}blocks.{{i}}.attention.reduce", f"{attention}self.sr"),
            *layer(f"{own}blocks.{{i}}.attention.reduced_norm", f"{attention}self.layer_norm"),
            *layer(f"{own}blocks.{{i}}.attention.out", f"{attention}output.dense"),
            *layer(f"{own}blocks.{{i}}.mlp.dense1", f"{block}mlp.dense1"),
            *layer(f"{own}blocks.{{i}}.mlp.depthwise", f"{block}mlp.dwconv.dwconv"),
            *layer(f"{own}blocks.{{i}}.mlp.dense2", f"{block}mlp.dense2"),
            *layer(f"{own}norm", f"{body}layer_norm.{stage}"),
        ]
    if head == "classifier":
        rules += layer("head.linear", "classifier")
    if head == "decoder":
        rules += [
            *layer("head.maps.{i}", "decode_head.linear_c.{i}.proj"),
            Rule(own="head.fuse.weight", foreign=("decode_head.linear_fuse.weight",)),
            *layer("head.norm", "decode_head.batch_norm"),
            *(
                Rule(own=f"head.norm.{part}", foreign=(f"decode_head.batch_norm.{part}",))
                for part in ("running_mean", "running_var", "num_batches_tracked")
            ),
            *layer("head.linear", "decode_head.classifier"),
        ]
    return TensorTable(program=name, rules=tuple(rules), unused=(), fold=None)


def segformer_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of our configuration, but for the image's size.

    Raises:
        WeightsError: the config uses what we have not, or is damaged.
    """
    if config.get("hidden_act", "gelu") != "gelu":
        raise WeightsError(
            f"the activation {config['hidden_act']!r} of a SegFormer is not known", hint="gelu is"
        )
    if config.get("reshape_last_stage", True) is False:
        raise WeightsError(
            "a SegFormer whose last stage is not reshaped is not known",
            hint="set reshape_last_stage to true in its config.json if it was trained so",
        )
    fields: dict[str, Any] = {"norm_eps": SEGFORMER_EPS}
    for own, theirs in _LISTS.items():
        if theirs in config:
            fields[own] = tuple(config[theirs])
    for own, theirs in _NUMBERS.items():
        if theirs in config:
            fields[own] = config[theirs]
    fields.setdefault("drop_path", 0.1)
    return fields


def segformer_decoder(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the decoder."""
    return {
        "name": "mlp",
        "width": config.get("decoder_hidden_size", 256),
        "dropout": config.get("classifier_dropout_prob", 0.1),
    }


def segformer_config(
    architecture: str, fields: Mapping[str, Any], decoder: Mapping[str, Any], labels: Sequence[str]
) -> dict[str, Any]:
    """A config.json for a SegFormer of ours.

    Args:
        architecture: the class of transformers.
        fields: all fields of our configuration.
        decoder: its settings; empty for a classifier.
        labels: of the classes.

    Raises:
        WeightsError: the model uses an option that has no place there.
    """
    if decoder and decoder.get("name") != "mlp":
        raise WeightsError(
            f"transformers has no SegFormer with the decoder {decoder.get('name')!r}",
            hint="only the decoder mlp fits",
        )
    if fields["norm_eps"] != SEGFORMER_EPS:
        raise WeightsError(
            f"transformers' SegFormer has no norm_eps={fields['norm_eps']}",
            hint=f"only models with norm_eps={SEGFORMER_EPS} fit",
        )
    config: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": "segformer",
        "num_encoder_blocks": len(fields["depths"]),
        "hidden_act": "gelu",
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    if any(ratio != int(ratio) for ratio in fields["mlp_ratios"]):
        raise WeightsError(
            f"transformers' SegFormer has no mlp_ratios={tuple(fields['mlp_ratios'])}",
            hint="only whole numbers fit",
        )
    config |= {theirs: [int(value) for value in fields[own]] for own, theirs in _LISTS.items()}
    config |= {theirs: fields[own] for own, theirs in _NUMBERS.items()}
    if decoder:
        config |= {
            "decoder_hidden_size": decoder["width"],
            "classifier_dropout_prob": decoder["dropout"],
            "semantic_loss_ignore_index": 255,
        }
    return config
