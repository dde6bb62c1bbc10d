"""A whole fit, and what its images teach, in any checkout of the package.

`PYTHONPATH=TREE/src python benchmarks/runner/beside.py METHOD SET SEED [IMAGES [NAME=NUMBER ...]]` prints one line of
JSON: processor seconds of the fit at epsilon 1 and delta 1e-5 on one thread and, if a number of images is given that
is not 0, figures of so many. Names are the method's parameters, such as steps=50.
Run it for two checkouts in turn, or at once on a core each (`taskset -c`), to compare them.
"""

import json
import sys
import time

import torch

import veilset as vs


def main(method: str, data: str, seed: str, images: str = "0", *options: str) -> None:
    """Fit, and perhaps draw and measure."""
    torch.set_num_threads(1)
    given = {k: json.loads(v) for k, v in (o.split("=") for o in options)}
    made, model = vs.load(data), vs.make(method, **given)
    begun = time.process_time()
    model.fit(made.train, vs.Privacy(1.0, 1e-5), seed=int(seed))
    spent = round(time.process_time() - begun, 1)
    told = {"version": vs.__version__, "method": method, "seed": seed, **given, "fit_s": spent}
    if int(images):
        drawn, real = model.sample(int(images), seed=0), made.test
        assert isinstance(real, vs.Images), "the test split is private"
        scores = vs.evaluate(drawn, against=real, metrics=["gen2real-logreg", "fd-gabor"], seeds=1)
        told |= {s.name: round(s.value, 2) for s in scores}
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
