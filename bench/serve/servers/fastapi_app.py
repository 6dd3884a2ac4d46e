"""A FastAPI app as fast as one writes it by hand: no schema of the body, orjson both ways, the model on the loop."""

import os

import numpy as np
import orjson
from common import MODEL, OUTPUT, WORK, dtypes, session
from fastapi import FastAPI, Request, Response

app = FastAPI()

if os.environ.get("BENCH_RUNTIME") == "sklearn":
    import pickle

    classifier = pickle.loads((WORK / MODEL / "model.pkl").read_bytes())

    def run(inputs):
        return classifier.predict_proba(np.asarray(next(iter(inputs.values())), np.float64))

else:
    loaded, types = session(), dtypes()

    def run(inputs):
        return loaded.run([OUTPUT], {name: np.asarray(rows, types[name]) for name, rows in inputs.items()})[0]


@app.post("/predict")
async def predict(request: Request):
    outputs = run(orjson.loads(await request.body())["inputs"])
    return Response(orjson.dumps({"outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
