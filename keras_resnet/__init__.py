"""Residual networks for Keras 3: functional models, tf.data pipelines, training runs, searches.

Importing this package loads neither Keras nor TensorFlow; the first use of a name that needs them does.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from keras_resnet import lazy
from keras_resnet.import_hook import when_imported
from keras_resnet.specs import TABLE as _TABLE

_HOMES = {
    "keras_resnet.errors": ("ExportFailed", "InputError", "SaveError", "SearchFailed"),
    "keras_resnet.specs": (
        "Block",
        "Dialect",
        "ResNetSpec",
        "Totals",
        "count_macs",
        "count_params",
        "count_totals",
        "estimate_memory",
        "get_dialect",
        "get_spec",
        "list_families",
        "list_models",
        "summarize",
    ),
    "keras_resnet.inputs": ("DataSource", "InputOptions", "Preprocessing"),
    "keras_resnet.recipes": ("Augmentation", "Recipe"),
    "keras_resnet.layers": ("GroupedConv1D", "GroupedConv2D"),
    "keras_resnet.models": ("build", "load_model", "stage_outputs", *_TABLE),
    "keras_resnet.growth": ("deepen",),
    "keras_resnet.device": ("wrap_for_device",),
    "keras_resnet.weights": ("load_keras_applications",),
    "keras_resnet.data": (
        "class_weights",
        "compute_preprocessing",
        "draw_subset",
        "load_data",
        "make_eval_dataset",
        "make_train_dataset",
        "resize_with_pad",
        "split_stratified",
    ),
    "keras_resnet.export": ("export_format", "export_saved_model", "fold_batchnorm"),
    "keras_resnet.training": ("compile_model", "reestimate_batchnorm"),
    "keras_resnet.jobs": ("evaluate", "export_run", "load_search", "predict", "train"),
}
_NAMESAKE = re.compile(r"keras[_-]resnet-([0-9][^-]*?)(?:-py[0-9.]+)?\.(?:dist|egg)-info$", re.IGNORECASE)

if TYPE_CHECKING:
    from keras_resnet import search
    from keras_resnet.data import (
        class_weights,
        compute_preprocessing,
        draw_subset,
        load_data,
        make_eval_dataset,
        make_train_dataset,
        resize_with_pad,
        split_stratified,
    )
    from keras_resnet.device import wrap_for_device
    from keras_resnet.errors import ExportFailed, InputError, SaveError, SearchFailed
    from keras_resnet.export import export_format, export_saved_model, fold_batchnorm
    from keras_resnet.growth import deepen
    from keras_resnet.inputs import Preprocessing
    from keras_resnet.jobs import evaluate, export_run, load_search, predict, train
    from keras_resnet.layers import GroupedConv1D, GroupedConv2D
    from keras_resnet.models import build, load_model, stage_outputs
    from keras_resnet.recipes import Augmentation, Recipe
    from keras_resnet.specs import (
        Block,
        Dialect,
        ResNetSpec,
        Totals,
        count_macs,
        count_params,
        count_totals,
        estimate_memory,
        get_dialect,
        get_spec,
        list_families,
        list_models,
        summarize,
    )
    from keras_resnet.training import compile_model, reestimate_batchnorm
    from keras_resnet.weights import load_keras_applications


_get, __dir__, __all__ = lazy.attach(__name__, _HOMES, modules=("search",))


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("keras-native-resnet")
    return _get(name)


def _refuse_namesake() -> None:
    """Raises where the old Keras 2 distribution `keras-resnet` shares this import name.

    Looks for its folder of metadata by name: importlib.metadata would take as long as the rest of this import.
    """
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:  # a zip file, or nothing there
            continue
        for name in names:
            match = _NAMESAKE.match(name)
            if match:
                raise ImportError(
                    f"The old Keras 2 package keras-resnet {match[1]} is installed under the same import name, "
                    "keras_resnet, and its files and ours overwrite each other. Run 'pip uninstall -y keras-resnet "
                    "keras-native-resnet' and install this package again from its checkout."
                )


_refuse_namesake()
# TensorFlow reads this once, when it is loaded; on AMD processors oneDNN is off by default and training takes
# up to twice as long. A setting of the user's is kept.
if "tensorflow" not in sys.modules:
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


# keras.saving.load_model knows our layers once their module is imported, which takes Keras: so as soon as Keras is.
when_imported("keras", lambda: importlib.import_module("keras_resnet.layers"))
