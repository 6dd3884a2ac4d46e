"""Makes a repository of models from the public ONNX backend suite, with ONNX Runtime's own answers.

    cases.py FOLDER FIRST EVERY [DATA]

Writes FOLDER/models/NAME/1/model.onnx and FOLDER/cases/NAME.npz for every EVERY-th case from the
FIRST on. A case is one that the `onnx`
package generates, or one in DATA, a wheel of the package that carries them. NAME.open is the same with all of its inputs'
dimensions open, and several rows of each where the model takes them. An archive holds inputs, in the model's order,
ONNX Runtime's own answers, and other answers that it gives to the same rows among copies of them, where kernels for more
rows round otherwise.

A model of a newer IR version or opset than the runtime has is written for the newest that it has. Left out are:

- cases that the runtime does not load (operators of opsets under development or of training, no kernel for the datatype) or
  does not run,
- those with inputs or outputs that are no tensors (sequences, optionals), or of datatypes that the protocol has no word for
  (float8, int4 and the like),
- those that answer differently each time (random numbers, dropout in training mode),
- and those that are the same model with the same inputs again: most cases of the wheel are generated ones.

Of the 3,312 cases of onnx 1.23 and the wheel of 1.17, 2,761 are run, which are 1,830 without repeats. Left out are 236 whose inputs are
sequences or optionals, 70 of other datatypes or outputs, 8 that answer differently each time, and 237 that the runtime does
not run.

Prints how many there are of each kind.
"""

import collections
import json
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

SIZES = {
    "tensor(bool)", "tensor(string)", "tensor(float16)", "tensor(float)", "tensor(double)", "tensor(bfloat16)",
    *(f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}


def generated():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        for case in collect_testcases(None):
            # Some are known to the package by a model that lies elsewhere.
            for inputs, _ in (case.data_sets or [])[:1]:
                yield case.name, case.model, inputs


def carried(data):
    """Cases of a wheel, which is a file, or of a folder."""
    with zipfile.ZipFile(data) as wheel:
        models = [n for n in wheel.namelist() if "/backend/test/data/" in n and n.endswith("/model.onnx")]
        for name in sorted(models):
            folder = name.rsplit("/", 1)[0]
            inputs = []
            while True:
                try:
                    inputs.append(wheel.read(f"{folder}/test_data_set_0/input_{len(inputs)}.pb"))
                except KeyError:
                    break
            kind, case = folder.split("/")[-2:]
            yield f"{case}.{kind}", onnx.load_from_string(wheel.read(name)), inputs


def value(description, given):
    """An input as an array; `None` if it is no tensor."""
    if not description.type.HasField("tensor_type"):
        return None
    if isinstance(given, bytes):
        given = numpy_helper.to_array(onnx.TensorProto.FromString(given))
    if not isinstance(given, (np.ndarray, np.generic)):
        return None
    return np.asarray(given)


def plain(array):
    """Strings as objects, and bfloat16 as its bits: what `np.savez` keeps without pickling is made of."""
    if array.dtype == object or array.dtype.kind in "US":
        encode = lambda s: s if isinstance(s, bytes) else str(s).encode()
        return np.frombuffer(json.dumps([encode(s).decode("utf-8") for s in array.ravel()]).encode(), np.uint8), "BYTES"
    names = {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64", "bfloat16": "BF16"}
    name = names.get(array.dtype.name) or array.dtype.name.upper()
    if name == "BF16":
        array = array.view(np.uint16)
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8), name


# Requests that the server may join: as many as are under way at once.
MOST_JOINED = 4


def newest(words, **versions):
    """The newest version that the runtime has, in its own words."""
    opset = onnx.helper.make_opsetid("", versions.get("opset", 18))
    model = onnx.helper.make_model(onnx.helper.make_graph([], "none", [], []), opset_imports=[opset])
    model.ir_version = versions.get("ir", 9)
    try:
        onnxruntime.InferenceSession(model.SerializeToString())
    except Exception as error:
        return int(re.search(words + r" (\d+)", str(error))[1])
    raise AssertionError("the runtime takes any version")


def same(a, b):
    return not isinstance(a, np.ndarray) or np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def among_copies(run, feeds, outputs):
    """Other answers to the rows of `feeds` when copies of them are in the same run."""
    tensors = [*feeds.values(), *outputs.values()]
    if not feeds or any(not isinstance(t, np.ndarray) or not t.ndim or len(t) != len(tensors[0]) for t in tensors):
        return []
    rows, others = len(tensors[0]), []
    for copies in range(2, MOST_JOINED + 1):
        try:
            made = run({name: np.concatenate([array] * copies) for name, array in feeds.items()})
        except Exception:
            return others
        # Elsewhere rows depend on one another, and are not joined.
        if any(each.shape != (copies * rows, *own.shape[1:]) for each, own in zip(made, outputs.values())):
            return others
        for place in range(copies):
            own = [each[place * rows : (place + 1) * rows] for each in made]
            if not any(all(map(same, own, known)) for known in [list(outputs.values()), *others]):
                others.append(own)
    return others


def answer(model, feeds):
    """What the runtime makes, what else it makes of the same among copies, and why neither is of use."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if any(i.type not in SIZES for i in [*session.get_inputs(), *session.get_outputs()]):
        return None, [], "no tensors of the protocol"
    names = [o.name for o in session.get_outputs()]
    run = onnxruntime.RunOptions()
    run.log_severity_level = 4
    made, *again = (session.run(names, feeds, run) for _ in range(4))
    if not all(same(a, b) for other in again for a, b in zip(made, other)):
        return None, [], "another answer each time"
    outputs = dict(zip(names, made))
    return outputs, among_copies(lambda feeds: session.run(names, feeds, run), feeds, outputs), None


def opened(model):
    """The same with open dimensions."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    constants = {each.name for each in model.graph.initializer}
    for each in model.graph.input:
        shape = each.type.tensor_type.shape
        if each.name not in constants and each.type.tensor_type.HasField("shape"):
            for place, dimension in enumerate(shape.dim):
                dimension.dim_param = f"{each.name}_{place}"
    for each in model.graph.output:
        shape = each.type.tensor_type.shape
        for place, dimension in enumerate(shape.dim):
            dimension.dim_param = f"{each.name}_{place}"
    del model.graph.value_info[:]
    return model


def main():
    folder, first, every = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    cases = list(generated())
    if len(sys.argv) > 4:
        cases += carried(sys.argv[4])
    counts = collections.Counter()
    seen = set()
    ir, opset = newest("max supported IR version:", ir=1 << 20), newest("ai.onnx is till opset", opset=1 << 20)
    for name, model, inputs in cases[first::every]:
        model.ir_version = min(model.ir_version, ir)
        for each in model.opset_import:
            if each.domain in ("", "ai.onnx"):
                each.version = min(each.version, opset)
        described = list(model.graph.input)
        feeds = [value(d, g) for d, g in zip(described, inputs)]
        if any(f is None for f in feeds) or len(inputs) > len(described):
            counts["inputs that are not tensors"] += 1
            continue
        feeds = {d.name: f for d, f in zip(described, feeds)}
        counts[keep(folder, seen, name, model, feeds)] += 1
        if any(f.ndim for f in feeds.values()):
            rows = {n: np.concatenate([f, f[:1]]) if f.ndim and len(f) else f for n, f in feeds.items()}
            free = opened(model)
            # Where another row is more than the model takes, its own will do.
            kept = keep(folder, seen, f"{name}.open", free, rows)
            if kept != "cases":
                kept = keep(folder, seen, f"{name}.open", free, feeds)
            counts[f"open: {kept}"] += 1
    print(json.dumps(counts))


def keep(folder, seen, name, model, feeds):
    """Writes one case, and says what became of it."""
    text = model.SerializeToString()
    try:
        outputs, others, why = answer(text, feeds)
    except Exception:
        return "the runtime does not run it"
    if outputs is None:
        return why
    if any(not isinstance(output, np.ndarray) for output in outputs.values()):
        return "no tensors of the protocol"
    kept, heads = {}, {"inputs": [], "outputs": []}
    for which, arrays in (("inputs", feeds), ("outputs", outputs)):
        for each, array in arrays.items():
            data, datatype = plain(array)
            kept[f"{which}{len(heads[which])}"] = data
            heads[which].append({"name": each, "shape": list(array.shape), "datatype": datatype})
    heads["others"] = len(others)
    for number, other in enumerate(others):
        kept.update({f"other{number}_{place}": plain(array)[0] for place, array in enumerate(other)})
    kept["heads"] = np.frombuffer(json.dumps(heads).encode(), np.uint8)
    key = hash((text, *(bytes(each) for each in kept.values())))
    if key in seen:
        return "the same again"
    seen.add(key)
    place = folder / "models" / name / "1"
    place.mkdir(parents=True)
    (place / "model.onnx").write_bytes(text)
    (folder / "cases").mkdir(exist_ok=True)
    np.savez(folder / "cases" / f"{name}.npz", **kept)
    return "cases"


main()
