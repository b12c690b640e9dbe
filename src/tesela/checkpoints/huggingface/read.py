"""Reader of Hugging Face folders: config.json, weights, preprocessor_config.json."""

from __future__ import annotations

from dataclasses import replace

from tesela.checkpoints.files import license_of, read_mapping, read_weights
from tesela.checkpoints.foreign import Foreign, Place
from tesela.checkpoints.huggingface.config import architecture_of, huggingface_fields, read_labels
from tesela.checkpoints.huggingface.names import ARCHITECTURES, huggingface_table
from tesela.checkpoints.huggingface.preprocessor import read_spec
from tesela.checkpoints.huggingface.segformer import segformer_decoder

PREPROCESSOR = "preprocessor_config.json"
#: Image size of a model whose files do not say one: SegFormer's, on ADE20K.
UNSAID = (512, 512)


def find_huggingface(place: Place) -> Foreign | None:
    """The checkpoint of a folder with transformers' config.json; None if it is another's.

    Raises:
        WeightsError: the architecture is not known, or a file is missing or damaged.
    """
    config, folder = place.config, place.folder
    if "model_type" not in config and "architectures" not in config:
        return None
    architecture_of(config, {})  # an unknown one is refused before gigabytes are read
    tensors, files = read_weights(folder, place.weights)
    architecture = architecture_of(config, tensors)
    family, fields = huggingface_fields(config, architecture)
    kind = ARCHITECTURES[architecture]
    heads = {
        "classifier": "classifier.bias",
        "teacher": "cls_classifier.bias",
        "decoder": "decode_head.classifier.bias",
    }
    head = heads.get(kind.head)
    if head is not None and config.get("id2label") == {} and head not in tensors:
        architecture = next(
            name
            for name, other in ARCHITECTURES.items()
            if other.model_type == kind.model_type and other.head == "none"
        )
        tensors = {name.removeprefix(kind.prefix): tensor for name, tensor in tensors.items()}
        head = None
    stages = len(config.get("depths", (0,) * config.get("num_encoder_blocks", 4)))
    names = huggingface_table(architecture, swiglu=fields.get("mlp") == "swiglu", stages=stages)
    labels = (
        read_labels(config, tensors[head].shape[0]) if head in tensors and tensors[head].ndim == 1 else None
    )
    spec = read_mapping(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else None
    image, remarks = read_spec(
        spec,
        model_type=kind.model_type,
        image_size=fields.get("image_size", UNSAID),
        channels=fields.get("channels", 3),
    )
    if kind.head == "decoder" and image.resize == "crop":
        image = replace(image, resize="squash", crop_ratio=1.0)
        remarks.append("images are squashed, not cut: a segmenter has to see all of them")
    fields.setdefault("image_size", image.size)
    return Foreign(
        source=folder,
        files=files,
        family=family,
        fields=fields,
        layout=names,
        decoder=segformer_decoder(config) if kind.head == "decoder" else {},
        tensors=tensors,
        image=image,
        labels=labels,
        remarks=remarks,
        license=license_of(folder),
        provenance={
            "format": "huggingface",
            "architecture": architecture,
            "config": dict(config),
            "preprocessor": spec,
        },
    )
