"""Figures that others state of the networks: (trainable, all) parameters, and multiply-adds at the row's input."""

# ImageNet rows: torchvision's documentation and pycls' model zoo (trainable); "all" adds BN's moving statistics.
# CIFAR rows: public re-implementations of He et al. 2015 (shortcut A) and pycls (shortcut B), 10 classes.
# resnet18_d2l: the summary table of the d2l tutorial in Keras, 1 channel, 10 classes.
PARAMETERS = {
    "resnet18": (11_689_512, 11_699_112),
    "resnet34": (21_797_672, 21_814_696),
    "resnet50": (25_557_032, 25_610_152),
    "resnet101": (44_549_160, 44_654_504),
    "resnet152": (60_192_808, 60_344_232),
    "resnet18_d2l": (11_178_378, 11_186_186),
    "resnet20_cifar": (269_722, 271_098),
    "resnet32_cifar": (464_154, 466_426),
    "resnet44_cifar": (658_586, 661_754),
    "resnet56_cifar": (853_018, 857_082),
    "resnet110_cifar": (1_727_962, 1_736_058),
    # He et al. 2015, table 6, say 19.4M; the figure itself follows from the formula of the rows above.
    "resnet1202_cifar": (19_421_274, 19_510_906),
    "resnet20_cifar_b": (272_474, 274_042),
    "resnet32_cifar_b": (466_906, 469_370),
    "resnet44_cifar_b": (661_338, 664_698),
    "resnet56_cifar_b": (855_770, 860_026),
    "resnet110_cifar_b": (1_730_714, 1_739_002),
}

MULTIPLY_ADDS = {  # pycls' model zoo, 224 pixels
    "resnet50": 4_089_185_256,
    "resnet101": 7_801_406_440,
    "resnet152": 11_513_627_624,
}
