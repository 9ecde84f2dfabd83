"""Runs a SavedModel as a server would, in a process that has TensorFlow and nothing of this package.

    python check.py SAVED_MODEL CASES.npz RESULT.json

It is run by its path, so that not even `keras_resnet` is imported. The session below is what TensorFlow Serving has: the
graph as it is in the file, signatures by their names, no Python functions.
"""

import json
import os
import sys

import numpy as np

REFUSED_OPS = ("PyFunc", "PyFuncStateless", "EagerPyFunc", "NumpyFunction")
WARMUP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")


def find_odd_nodes(path: str) -> list[str]:
    """Names what a TensorFlow Serving without XLA, Python or custom operations cannot run."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    with open(os.path.join(path, "saved_model.pb"), "rb") as file:
        saved.ParseFromString(file.read())
    odd = []
    for meta_graph in saved.meta_graphs:
        library = meta_graph.graph_def.library
        functions = {function.signature.name for function in library.function}
        attributes = [(function.signature.name, function.attr) for function in library.function]
        nodes = [*meta_graph.graph_def.node, *(node for function in library.function for node in function.node_def)]
        for node in nodes:
            if node.op.startswith("Xla") or node.op in REFUSED_OPS:
                odd.append(f"{node.op} ({node.name})")
            elif node.op not in functions and not hasattr(tf.raw_ops, node.op):
                odd.append(f"custom operation {node.op} ({node.name})")
            attributes.append((node.name, node.attr))
        for name, attribute in attributes:
            if "_XlaMustCompile" in attribute and attribute["_XlaMustCompile"].b:
                odd.append(f"_XlaMustCompile ({name})")
    return sorted(set(odd))


def run_cases(
    path: str, cases: dict[str, np.ndarray], class_names: np.ndarray
) -> tuple[dict[str, dict[str, float]], int]:
    """Largest differences by "signature/batch" and output, and the number of warm-up requests that were answered.

    Args:
        path: the SavedModel.
        cases: arrays by "signature/batch/input/name" and, of what must come out, "signature/batch/output/name".
        class_names: of the outputs.
    """
    import tensorflow as tf

    differences: dict[str, dict[str, float]] = {}
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], path)

        def run(signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            definition = meta_graph.signature_def[signature]
            feeds = {definition.inputs[name].name: value for name, value in inputs.items()}
            fetches = {name: tensor.name for name, tensor in definition.outputs.items()}
            return session.run(fetches, feeds)

        for case in sorted({key.rsplit("/", 2)[0] for key in cases}):
            parts: dict[str, dict[str, np.ndarray]] = {"input": {}, "output": {}}
            for key, value in cases.items():
                if key.rsplit("/", 2)[0] == case:
                    _, kind, name = key.rsplit("/", 2)
                    parts[kind][name] = value
            found = run(case.split("/")[0], parts["input"])
            differences[case] = {name: compare(found[name], name, want) for name, want in parts["output"].items()}
            if "class_ids" in found:
                differences[case]["top"] = _check_top(found, class_names)
        warmup = os.path.join(path, WARMUP_FILE)
        answered = 0
        if os.path.exists(warmup):
            from tensorflow_serving.apis import prediction_log_pb2

            for record in tf.compat.v1.io.tf_record_iterator(warmup):
                request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
                answer = run(
                    request.model_spec.signature_name,
                    {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()},
                )
                if not all(np.isfinite(value).all() for value in answer.values() if value.dtype.kind == "f"):
                    raise ValueError(f"warm-up request {answered} was answered with what is not a number")
                answered += 1
    return differences, answered


def compare(found: np.ndarray, name: str, want: np.ndarray) -> float:
    """The largest difference, as a share of the largest value; of probabilities as it is."""
    got = np.asarray(found, np.float64)
    if got.shape != want.shape:
        raise ValueError(f"{name} has the shape {got.shape}, not {want.shape}")
    if not np.isfinite(got).all():
        return float("inf")
    scale = 1.0 if name == "probabilities" else max(float(np.abs(want).max()), 1e-30)
    return float(np.abs(got - want).max()) / scale


def _check_top(found: dict[str, np.ndarray], names: np.ndarray) -> float:
    """0 where ids, names and probabilities belong together, by falling probability; else 1."""
    picked = np.take_along_axis(found["probabilities"], found["class_ids"], axis=1)
    count = min(5, found["probabilities"].shape[1])
    right = (
        picked.shape[1] == count
        and bool((np.diff(picked, axis=1) <= 0).all())
        and np.array_equal(picked, -np.sort(-found["probabilities"], axis=1)[:, :count])
        and np.array_equal(
            np.char.decode(np.asarray(found["class_names"], np.bytes_), "utf-8"), names[found["class_ids"]]
        )
    )
    return 0.0 if right else 1.0


def main() -> None:
    """Reads the cases, runs the SavedModel, writes what was found."""
    path, cases_path, result_path = sys.argv[1:]
    result: dict[str, object] = {"odd": find_odd_nodes(path)}
    if not result["odd"]:
        with np.load(cases_path) as cases:
            arrays = dict(cases)
            names = arrays.pop("class_names")
            result["differences"], result["warmup"] = run_cases(path, arrays, names)
    with open(result_path, "w", encoding="utf-8") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main()
