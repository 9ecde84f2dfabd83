"""What both clients of TensorFlow Serving share: options, images in batches, tries, the CSV file. It runs nothing itself."""

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

SIGNATURE = "serve_bytes"  # takes PNG and JPEG files as they are
INPUT = "image_bytes"
SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_NAMES = 5  # an exported model names its best 5 classes
LONGEST_WAIT = 30.0  # seconds between two tries, however many there were

Answer = list[tuple[str, float]]  # class names and probabilities of one image, the best first
Predict = Callable[[Sequence[bytes]], list[Answer]]  # raises the errors below


class ClientError(Exception):
    """Ends the client with one line."""


class TryAgainError(Exception):
    """The server could not answer now; the same request may succeed later."""


class RefusedError(Exception):
    """The server cannot take these images and would say so again."""


class Table:
    """The CSV file: written beside, renamed however the block ends, if there are rows; else an older one stays."""

    def __init__(self, path: Path, top: int):
        self.classified = self.refused = 0
        self._path, self._top = path, top
        self._partial = path.with_name(f"partial-{path.name}")

    def __enter__(self):
        try:
            # A path that is not UTF-8 is written as the bytes it is.
            self._file = open(self._partial, "w", newline="", encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise self._failure(error) from error
        numbers = ["", *(f"_{rank}" for rank in range(2, self._top + 1))]
        columns = [f"{column}{number}" for number in numbers for column in ("class_name", "probability")]
        self._writer = csv.writer(self._file)
        self._write("path", *columns, "error")
        return self

    def __exit__(self, *_):
        try:
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())
            if self.classified or self.refused:
                os.replace(self._partial, self._path)
        except OSError as error:
            raise self._failure(error) from error
        finally:
            self._partial.unlink(missing_ok=True)

    def __str__(self):
        """What the file holds by now."""
        if not self.classified and not self.refused:
            return f"{self._path} was not written"
        return f"{self._path}: {self.classified} images classified, {self.refused} refused"

    def add(self, path: Path, answer: Answer) -> None:
        """A row for an image that was classified."""
        best = answer[: self._top]
        cells = [cell for name, probability in best for cell in (name, f"{probability:.6g}")]
        self._write(path, *cells, *[""] * 2 * (self._top - len(best)), "")
        self.classified += 1

    def refuse(self, path: Path, reason: str) -> None:
        """A row for an image that was not."""
        tqdm.write(f"{path}: {reason}", file=sys.stderr)
        self._write(path, *[""] * 2 * self._top, reason)
        self.refused += 1

    def _write(self, *cells):
        try:
            self._writer.writerow(cells)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error):
        self.classified = self.refused = 0  # whatever was written is not kept
        return ClientError(f"{self._path} could not be written: {error.strerror}.")


def run_client(description: str, port: int, connect: Callable[[argparse.Namespace], Predict]) -> int:
    """Classifies a directory as the command line says; returns the exit status.

    Args:
        description: for --help.
        port: the protocol's, by default.
        connect: gives what sends one batch. It is called once there are images, so that it may import what is slow.
    """
    args = _parse(description, port)
    table = Table(args.output, args.top)
    try:
        paths = list_images(args.directory)
        with table, tqdm(total=len(paths), unit="image", disable=None) as bar:
            classify(paths, connect(args), table, args, bar.update)
    except KeyboardInterrupt:
        print(f"interrupted; {table}", file=sys.stderr)
        return 130
    except ClientError as error:
        print(f"error: {error} {table}", file=sys.stderr)
        return 1
    print(table)
    return 1 if table.refused else 0


def _parse(description, port):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="searched for PNG and JPEG files, with the directories in it")
    parser.add_argument("--model", required=True, help="the name that it is served under")
    parser.add_argument("--model-version", type=_positive(int), help="by default the newest that is served")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=_positive(int), default=port)
    parser.add_argument("--batch-size", type=_positive(int), default=32, help="images in a request")
    parser.add_argument("--top", type=int, choices=range(1, MOST_NAMES + 1), default=MOST_NAMES, help="classes named")
    parser.add_argument("--timeout-seconds", type=_positive(float), default=30.0, help="of one request")
    parser.add_argument("--retries", type=int, choices=range(11), default=5, metavar="0-10", help="after a failed try")
    parser.add_argument(
        "--backoff-seconds", type=_positive(float), default=0.5, help="first wait; each is twice the last"
    )
    parser.add_argument("--output", type=Path, default=Path("predictions.csv"))
    return parser.parse_args()


def _positive(kind):
    def convert(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be above 0. Received: {text}")
        return value

    convert.__name__ = kind.__name__  # argparse names it in its error
    return convert


def address(args: argparse.Namespace) -> str:
    """`host:port`, in brackets where the host is an IPv6 address."""
    return f"[{args.host}]:{args.port}" if ":" in args.host else f"{args.host}:{args.port}"


def list_images(directory: Path) -> list[Path]:
    """All PNG and JPEG files below `directory`, sorted."""

    def fail(error):  # os.walk would leave out what it may not read and say nothing
        raise ClientError(f"{error.filename} could not be listed: {error.strerror}.")

    found = [
        Path(folder, name)
        for folder, _, names in os.walk(directory, onerror=fail)
        for name in names
        if name.lower().endswith(SUFFIXES)
    ]
    if not found:
        raise ClientError(f"{directory} must hold images ({', '.join(SUFFIXES)}). Received: none.")
    return sorted(found)


def classify(
    paths: Sequence[Path],
    predict: Predict,
    table: Table,
    args: argparse.Namespace,
    advance: Callable[[int], object],
) -> None:
    """Sends `paths` in batches and fills `table`; `advance` is told how many are done."""
    for start in range(0, len(paths), args.batch_size):
        batch = []
        for path in paths[start : start + args.batch_size]:
            try:
                batch.append((path, path.read_bytes()))
            except OSError as error:
                table.refuse(path, f"could not be read: {error.strerror}")
                advance(1)
        if batch:
            _classify_batch(batch, predict, table, args, advance)


def _classify_batch(batch, predict, table, args, advance):
    refused = None
    try:
        answers = _ask(predict, [image for _, image in batch], args)
    except RefusedError as error:
        refused = str(error)
    if refused is None:
        for (path, _), answer in zip(batch, answers, strict=True):
            table.add(path, answer)
        advance(len(batch))
    elif len(batch) == 1:
        table.refuse(batch[0][0], refused)
        advance(1)
    else:  # the server does not say which image it was
        for image in batch:
            _classify_batch([image], predict, table, args, advance)


def _ask(predict, images, args):
    wait = args.backoff_seconds
    for tries in range(1, args.retries + 2):
        try:
            answers = predict(images)
        except TryAgainError as error:
            if tries > args.retries:
                raise ClientError(
                    f"{address(args)} must answer. Received at the last of {tries} tries: {error}."
                ) from error
            wait = min(wait, LONGEST_WAIT)
            tqdm.write(f"{address(args)}: {error}; next try in {wait:g} s", file=sys.stderr)
            time.sleep(wait)
            wait *= 2
        else:
            if len(answers) != len(images):
                raise ClientError(
                    f"{address(args)} must answer for each of {len(images)} images. Received: {len(answers)} answers."
                )
            return answers


def shorten(message: str, length: int = 300) -> str:
    """A server's message as one line that is not too long, without the names of graph nodes."""
    line = " ".join(message.partition("[[{{node")[0].split())
    return line if len(line) <= length else f"{line[: length - 3]}..."
