"""The command line: parse, one call, report. Heavy imports happen inside the commands."""

from __future__ import annotations

import logging
import os
import sys

import click

from keras_resnet.cli.datasets import data
from keras_resnet.cli.exports import export
from keras_resnet.cli.networks import models, show
from keras_resnet.cli.runs import evaluate, predict, train
from keras_resnet.cli.searches import search
from keras_resnet.errors import ExportFailed, InputError, SaveError, SearchFailed


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110})
@click.version_option(package_name="keras-native-resnet", prog_name="keras-resnet")
def cli() -> None:
    """Residual networks for Keras: train, evaluate, use, search, export."""


def main() -> None:
    """Entry point of the console script: errors of use become one line and exit status 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("keras_resnet").setLevel(logging.INFO)
    try:
        cli.main(prog_name="keras-resnet", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (InputError, SaveError, SearchFailed, ExportFailed) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Stopped.", err=True)
        sys.exit(130)


for _command in (train, evaluate, predict, search, export, data, models, show):
    cli.add_command(_command)
