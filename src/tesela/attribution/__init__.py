"""Attribution: which parts of an image a model's answer rests on."""
