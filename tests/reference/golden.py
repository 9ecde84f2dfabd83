"""Figures that others state of the networks: (trainable, all) parameters, and multiply-adds at the row's input."""

# "All" adds BN's moving statistics to the trainable ones, as Keras counts.
PARAMETERS = {
    # torchvision's documentation and pycls' model zoo.
    "resnet18": (11_689_512, 11_699_112),
    "resnet34": (21_797_672, 21_814_696),
    "resnet50": (25_557_032, 25_610_152),
    "resnet101": (44_549_160, 44_654_504),
    "resnet152": (60_192_808, 60_344_232),
    "resnext50_32x4d": (25_028_904, 25_097_128),
    "resnext101_32x8d": (88_791_336, 88_994_216),
    "resnext101_64x4d": (83_455_272, 83_658_152),
    "wide_resnet50_2": (68_883_240, 68_951_464),
    "wide_resnet101_2": (126_886_696, 127_024_552),
    # Pre-activation: public implementations for 18, 50 and 101 (the last two also as BiT R50x1 and R101x1, whose group
    # normalization has as many weights); 34 and 152 are as far below their first forms as 18 and 50: 1,792 and 7,680.
    "resnetv2_18": (11_687_720, 11_695_528),
    "resnetv2_34": (21_795_880, 21_811_112),
    "resnetv2_50": (25_549_352, 25_594_792),
    "resnetv2_101": (44_541_480, 44_639_144),
    "resnetv2_152": (60_185_128, 60_328_872),
    # ResNet-D: the model lists of imgclsmob ("ResNet(A)") and others for 18, 34, 50, 101; each is 19,232 above its
    # first form, so is 152.
    "resnet18_d": (11_708_744, 11_718_472),
    "resnet34_d": (21_816_904, 21_834_056),
    "resnet50_d": (25_576_264, 25_629_512),
    "resnet101_d": (44_568_392, 44_673_864),
    "resnet152_d": (60_212_040, 60_363_592),
    # Squeeze-and-excitation: the model lists of imgclsmob, pretrained-models.pytorch and others.
    "seresnet18": (11_778_592, 11_788_192),
    "seresnet34": (21_958_868, 21_975_892),
    "seresnet50": (28_088_024, 28_141_144),
    "seresnet101": (49_326_872, 49_432_216),
    "seresnet152": (66_821_848, 66_973_272),
    "seresnext50_32x4d": (27_559_896, 27_628_120),
    # Those with shortcuts less their projections: 64 x 128 + 128 x 256 + 256 x 512 weights and 2 x 896 of BN.
    "plain18": (11_515_688, 11_523_496),
    "plain34": (21_623_848, 21_639_080),
    # Keras' documentation (all).
    "resnet50_keras": (25_583_592, 25_636_712),
    "resnet101_keras": (44_601_832, 44_707_176),
    "resnet152_keras": (60_268_520, 60_419_944),
    "resnet50v2_keras": (25_568_360, 25_613_800),
    "resnet101v2_keras": (44_577_896, 44_675_560),
    "resnet152v2_keras": (60_236_904, 60_380_648),
    # The summary table of the d2l tutorial in Keras, 1 channel, 10 classes.
    "resnet18_d2l": (11_178_378, 11_186_186),
    # CIFAR, 10 classes: public re-implementations of He et al. 2015 (shortcut A) and pycls (shortcut B).
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
    "plain20_cifar": (269_722, 271_098),  # shortcut A has no parameters
    "plain56_cifar": (853_018, 857_082),
    # imgclsmob's list (PreResNet-110), and public implementations.
    "resnetv2_20_cifar": (272_282, 273_658),
    "resnetv2_110_cifar": (1_730_522, 1_738_618),
    "resnetv2_164_cifar_bottleneck": (1_703_258, 1_727_482),  # imgclsmob's list ("PreResNet-164(BN)")
    "resnext29_8x64d_cifar": (34_426_698, 34_484_170),  # Xie et al. 2016, table 7: 34.4M
    # Zagoruyko and Komodakis 2016, table 4: 2.7M (16-4), 2.2M (40-2), 36.5M; exact in several public implementations.
    "wrn16_4_cifar": (2_748_890, 2_752_506),
    "wrn28_10_cifar": (36_479_194, 36_497_146),
    "wrn40_2_cifar": (2_243_546, 2_248_954),
    # Nobody states these; tests/test_parity.py counts them once more in PyTorch, as it does all others.
    "resnet18_1d": (4_356_904, 4_366_504),
    "resnet34_1d": (7_731_240, 7_748_264),
    "resnet50_1d": (18_003_240, 18_056_360),
    "resnet18_multiscale_1d": (6_791_336, 6_800_936),
    "resnet18_multiscale": (34_404_904, 34_414_504),
}

MULTIPLY_ADDS = {  # pycls' model zoo, 224 pixels
    "resnet50": 4_089_185_256,
    "resnet101": 7_801_406_440,
    "resnet152": 11_513_627_624,
    "resnext50_32x4d": 4_230_480_872,
}
GIGA_MULTIPLY_ADDS = {  # torchvision's documentation ("GFLOPS"), 224 pixels
    "resnet18": 1.81,
    "resnet34": 3.66,
    "resnext101_32x8d": 16.41,
    "resnext101_64x4d": 15.46,
    "wide_resnet50_2": 11.40,
    "wide_resnet101_2": 22.75,
}
# He et al. 2015, table 1, in 10^9; the bottleneck there has its stride on the first 1x1.
TABLE_1 = {
    "resnet18": 1.8,
    "resnet34": 3.6,
    "resnet50_keras": 3.8,
    "resnet101_keras": 7.6,
    "resnet152_keras": 11.3,
}
