"""Makes a repository of models from the public ONNX backend suite, with ONNX Runtime's own answers.

    cases.py FOLDER EVERY [DATA]

Writes FOLDER/models/NAME/1/model.onnx and FOLDER/cases/NAME.npz for every EVERY-th case. A case is one that the `onnx`
package generates, or one in DATA (`onnx/backend/test/data` of a wheel that carries them). An archive holds the inputs as
`in.NAME`, in the model's order, and the answers of ONNX Runtime as `out.NAME`. Left out are cases that the runtime does not
load or run, and those with inputs or outputs that are not tensors. Prints how many there are of each kind.
"""

import collections
import json
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
            for number, (inputs, _) in enumerate(case.data_sets[:1]):
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


def answer(model, feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if any(i.type not in SIZES for i in [*session.get_inputs(), *session.get_outputs()]):
        return None, "no tensors of the protocol"
    names = [o.name for o in session.get_outputs()]
    run = onnxruntime.RunOptions()
    run.log_severity_level = 4
    return dict(zip(names, session.run(names, feeds, run))), [i.name for i in session.get_inputs()]


def main():
    folder, every = Path(sys.argv[1]), int(sys.argv[2])
    cases = list(generated())
    if len(sys.argv) > 3:
        cases += carried(sys.argv[3])
    counts = collections.Counter()
    seen = set()
    for name, model, inputs in cases[::every]:
        described = list(model.graph.input)
        text = model.SerializeToString()
        key = hash(text)
        if key in seen:
            counts["the same model again"] += 1
            continue
        seen.add(key)
        feeds = [value(d, g) for d, g in zip(described, inputs)]
        if any(f is None for f in feeds) or len(inputs) > len(described):
            counts["inputs that are not tensors"] += 1
            continue
        feeds = {d.name: f for d, f in zip(described, feeds)}
        try:
            outputs, order = answer(text, feeds)
        except Exception as error:
            counts["the runtime does not run it"] += 1
            continue
        if outputs is None or any(not isinstance(o, np.ndarray) for o in outputs.values()):
            counts["no tensors of the protocol"] += 1
            continue
        place = folder / "models" / name / "1"
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(text)
        kept, heads = {}, {"inputs": [], "outputs": []}
        for which, arrays in (("inputs", feeds), ("outputs", outputs)):
            for each, array in arrays.items():
                data, datatype = plain(array)
                kept[f"{which}{len(heads[which])}"] = data
                heads[which].append({"name": each, "shape": list(array.shape), "datatype": datatype})
        kept["heads"] = np.frombuffer(json.dumps(heads).encode(), np.uint8)
        cases_folder = folder / "cases"
        cases_folder.mkdir(exist_ok=True)
        np.savez(cases_folder / f"{name}.npz", **kept)
        counts["cases"] += 1
    print(json.dumps(counts))


main()
