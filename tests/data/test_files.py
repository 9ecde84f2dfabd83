"""Files that are whole or not there, whatever happens while they are written."""

import threading

import pytest

from keras_resnet.errors import SaveError
from keras_resnet.files import PARTIAL, write_beside


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("stop", [ValueError("no"), KeyboardInterrupt()])
def test_what_stops_a_writer_leaves_the_older_file_and_nothing_else(tmp_path, shared, stop):
    path = tmp_path / "file.txt"
    write_beside(path, lambda partial: partial.write_text("old"), shared=shared)

    def write(partial):
        assert partial.name.startswith(PARTIAL)
        assert partial.suffix == ".txt"
        partial.write_text("half")
        raise stop

    expected = SaveError if isinstance(stop, ValueError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write_beside(path, write, hint="Older files stay.", shared=shared)
    if expected is SaveError:
        assert str(caught.value) == f"{path} could not be written: no. Older files stay."
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writers_of_a_shared_file_do_not_meet(tmp_path):
    path, both_write = tmp_path / "file.txt", threading.Barrier(2, timeout=60)
    failed = []

    def write(text):
        def writer(partial):
            with open(partial, "x", encoding="utf-8") as file:
                file.write(text)
                both_write.wait()

        try:
            write_beside(path, writer, shared=True)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert path.read_text() in ("one", "two")
    assert list(tmp_path.iterdir()) == [path]
