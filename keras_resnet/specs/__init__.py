"""What a network is, as data: specs, dialects, the table of every network, and counting from them."""

from keras_resnet.specs.block import EXPANSIONS, OPTIONS, SHORTCUTS, Block, BlockOptions, se_width
from keras_resnet.specs.conv import Conv
from keras_resnet.specs.counting import (
    Section,
    check_classes,
    check_input_shape,
    final_feature_map,
    iter_layers,
    iter_sections,
)
from keras_resnet.specs.dialect import (
    D2L,
    DIALECTS,
    KERAS_V1,
    KERAS_V2,
    TORCHVISION,
    TORCHVISION_V2,
    Dialect,
    get_dialect,
)
from keras_resnet.specs.layout import iter_blocks, iter_stages
from keras_resnet.specs.spec import ResNetSpec
from keras_resnet.specs.stem import POOLED_STEMS, STEM_STRIDES, check_stem, stem_convs
from keras_resnet.specs.summary import SectionSummary, describe_conventions, summarize
from keras_resnet.specs.table import (
    DEFAULT_CLASSES,
    DEFAULT_INPUT_SHAPES,
    TABLE,
    Row,
    find_row,
    get_row,
    get_spec,
    list_families,
    list_models,
    resolve,
)
from keras_resnet.specs.totals import Totals, count_macs, count_params, count_totals, estimate_memory
from keras_resnet.specs.walk import LayerCost

__all__ = [
    "D2L",
    "DEFAULT_CLASSES",
    "DEFAULT_INPUT_SHAPES",
    "DIALECTS",
    "EXPANSIONS",
    "KERAS_V1",
    "KERAS_V2",
    "OPTIONS",
    "POOLED_STEMS",
    "SHORTCUTS",
    "STEM_STRIDES",
    "TABLE",
    "TORCHVISION",
    "TORCHVISION_V2",
    "Block",
    "BlockOptions",
    "Conv",
    "Dialect",
    "LayerCost",
    "ResNetSpec",
    "Row",
    "Section",
    "SectionSummary",
    "Totals",
    "check_classes",
    "check_input_shape",
    "check_stem",
    "count_macs",
    "count_params",
    "count_totals",
    "describe_conventions",
    "estimate_memory",
    "final_feature_map",
    "find_row",
    "get_dialect",
    "get_row",
    "get_spec",
    "iter_blocks",
    "iter_layers",
    "iter_sections",
    "iter_stages",
    "list_families",
    "list_models",
    "resolve",
    "se_width",
    "stem_convs",
    "summarize",
]
