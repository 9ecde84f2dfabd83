"""What a network is, as data: specs, dialects, the table of every network, and counting from them."""

from keras_resnet.specs.counting import (
    LayerCost,
    check_classes,
    check_input_shape,
    count_macs,
    count_params,
    final_feature_map,
    iter_layers,
)
from keras_resnet.specs.spec import (
    D2L,
    DIALECTS,
    EXPANSIONS,
    TORCHVISION,
    Dialect,
    ResNetSpec,
    get_dialect,
    inner_width,
)
from keras_resnet.specs.table import TABLE, Row, get_row, get_spec, list_models

__all__ = [
    "D2L",
    "DIALECTS",
    "EXPANSIONS",
    "TABLE",
    "TORCHVISION",
    "Dialect",
    "LayerCost",
    "ResNetSpec",
    "Row",
    "check_classes",
    "check_input_shape",
    "count_macs",
    "count_params",
    "final_feature_map",
    "get_dialect",
    "get_row",
    "get_spec",
    "inner_width",
    "iter_layers",
    "list_models",
]
