"""`Dialect`: how one library writes the same network."""

from __future__ import annotations

from dataclasses import dataclass

from keras_resnet.errors import InputError
from keras_resnet.records import Record, check_choice, check_options, option


@dataclass(frozen=True)
class Dialect(Record):
    """How one library writes the same network: everything that is a convention rather than architecture."""

    name: str
    activation_order: str = option(
        "post", '"post": conv, BN, ReLU, and ReLU after the addition; "pre": BN, ReLU, conv.', choices=("post", "pre")
    )
    bottleneck_stride: str = option(
        "3x3",
        'Which convolution of a bottleneck takes the stride: "1x1" (2015) or "3x3" ("v1.5").',
        choices=("1x1", "3x3"),
    )
    stride_block: str = option(
        "first",
        'Which block of a stage takes its stride. With "last" a shortcut projects only where the channels change.',
        choices=("first", "last"),
    )
    padding: str = option(
        "symmetric",
        '"symmetric" pads k // 2 on both sides; "same" is TensorFlow\'s, uneven at stride 2.',
        choices=("symmetric", "same"),
    )
    pool_padding: str = option(
        "minus_infinity",
        "What pads the stem's max pool where no ReLU comes before it; after a ReLU the two are the same.",
        choices=("minus_infinity", "zeros"),
    )
    conv_bias: str = option(
        "none",
        'Which convolutions have a bias; "without_bn": those that no BN follows at once (BN subtracts it again).',
        choices=("none", "all", "without_bn"),
    )
    shortcut_bn: bool = option(True, "Whether the projection of a shortcut is followed by BN.")
    bn_epsilon: float = option(1e-5, "What BN adds to the variance.", low_open=True)
    bn_momentum: float = option(0.9, "Keras' convention: the share of the old value, 1 - PyTorch's.", high=1)
    # BN hides a kernel's scale from the output, so a smaller kernel only turns faster: 21 steps of ResNet-18 on MNIST at
    # 112 pixels gave test accuracy 0.80 with the first and 0.56 with the second.
    initializer: str = option(
        "glorot_uniform",
        'Of the kernels: Keras\' "glorot_uniform", or "he_fan_out", He et al.\'s normal.',
        choices=("glorot_uniform", "he_fan_out"),
    )

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"A dialect's name must be a string. Received: {self.name!r}.")
        check_options(self)

    @property
    def preactivation(self) -> bool:
        """Whether BN and ReLU come before each convolution."""
        return self.activation_order == "pre"

    def has_bias(self, *, bn_follows: bool) -> bool:
        """Whether a convolution has a bias, given whether BN follows it at once."""
        return self.conv_bias == "all" or (self.conv_bias == "without_bn" and not bn_follows)


TORCHVISION = Dialect("torchvision")
# He et al. 2016 as PyTorch libraries write it: a bare stem, and projections from what is activated, without BN.
TORCHVISION_V2 = Dialect("torchvision_v2", activation_order="pre", shortcut_bn=False)
# keras.applications.ResNet50/101/152 and ResNet50V2/101V2/152V2, Keras 3.15.
KERAS_V1 = Dialect("keras_v1", bottleneck_stride="1x1", conv_bias="all", bn_epsilon=1.001e-5, bn_momentum=0.99)
KERAS_V2 = Dialect(
    "keras_v2",
    activation_order="pre",
    stride_block="last",
    pool_padding="zeros",
    conv_bias="without_bn",
    shortcut_bn=False,
    bn_epsilon=1.001e-5,
    bn_momentum=0.99,
)
# The d2l chapter and the Keras tutorial after it: Keras' own defaults everywhere.
D2L = Dialect("d2l", padding="same", conv_bias="all", shortcut_bn=False, bn_epsilon=1e-3, bn_momentum=0.99)
DIALECTS = {dialect.name: dialect for dialect in (TORCHVISION, TORCHVISION_V2, KERAS_V1, KERAS_V2, D2L)}


def get_dialect(name: str) -> Dialect:
    """Returns the dialect called `name`; raises InputError naming the known ones."""
    check_choice("A network's dialect", name, DIALECTS)
    return DIALECTS[name]
