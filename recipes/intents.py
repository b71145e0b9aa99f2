"""All 150 intents of CLINC150 from 5 and 10 questions each: a frozen text encoder and one of several heads.

    python recipes/intents.py --part validation --head each
    python recipes/intents.py --encoder all-MiniLM-L6-v2

Questions of the train part are drawn, and every question of the test part is judged: a fraction of right answers, and
for questions of no intent the area under the ROC curve of the largest logit. --encoder is what TextReader takes:
"hashing", which is the default, or a name or a folder of a model of sentence-transformers (extra `text`). Heads:
"together" and "each" are Ridge with one scale for all features, or one for each; "cosine" is SimpleShot, the nearest
mean of centred features of unit length; "logistic" is scikit-learn's logistic regression with --strength as C;
"average" the mean of the probabilities of "together" and "logistic". Appends a line for each number of questions to
benchmarks/results/intents.jsonl.
"""

import argparse
import json
import math
import sys
import time

import numpy as np
import sklearn
import torch
from result import RESULTS
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import quickstudy as qs
from quickstudy.data import clinc150
from quickstudy.learners import Ridge, SimpleShot
from quickstudy.readers import TextReader

HEADS = ("together", "each", "cosine", "logistic", "average")


def logits_of(head: str, support: qs.Labelled, x: Tensor, strength: float) -> Tensor:
    """(m, way)."""
    if head == "cosine":
        return SimpleShot(nn.Identity(), centre=support.x.mean(0)).answer(support, x)
    if head == "logistic":
        model = LogisticRegression(C=strength, max_iter=1000).fit(support.x.numpy(), support.y.argmax(1).numpy())
        return torch.from_numpy(model.decision_function(x.numpy()))
    if head == "average":
        parts = [logits_of(part, support, x, strength).double().softmax(-1) for part in ("together", "logistic")]
        return torch.stack(parts).mean(0).log()
    return Ridge(scale=head).answer(support, x)


def mean_of(values: list[float]) -> dict[str, float]:
    """The mean over draws, and its ci95."""
    return {"mean": float(np.mean(values)), "ci95": float(1.96 * np.std(values, ddof=1) / math.sqrt(len(values)))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="hashing")
    parser.add_argument("--head", choices=HEADS, default="together")
    parser.add_argument("--part", choices=("validation", "test"), default="test")
    parser.add_argument("--shots", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--strength", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data, reader = clinc150.load(), TextReader(encoder=args.encoder)
    parts, way, began = np.array(data.parts), len(data.intents), time.perf_counter()

    def encode(rows: np.ndarray) -> Tensor:
        return reader.read([data.texts[row] for row in rows])

    train, judged = (np.flatnonzero(parts == part) for part in ("train", args.part))
    outside = [t for t, part in zip(data.out_of_scope, data.out_of_scope_parts, strict=True) if part == args.part]
    queries, truth = torch.cat([encode(judged), reader.read(outside)]), torch.from_numpy(data.y[judged])
    known = np.arange(len(queries)) < len(judged)
    for shot in args.shots:
        accuracies, areas, unseen = [], [], []
        for t in range(args.draws):
            rng = np.random.default_rng((args.seed, shot, t))
            pools = (train[data.y[train] == intent] for intent in range(way))
            rows = np.concatenate([rng.choice(pool, shot, replace=False) for pool in pools])
            support = qs.Labelled(encode(rows), qs.one_hot(torch.from_numpy(data.y[rows]), way))
            logits = logits_of(args.head, support, queries, args.strength)
            accuracies.append(float((logits[: len(judged)].argmax(1) == truth).double().mean()))
            areas.append(float(roc_auc_score(known, logits.amax(1).numpy())))
            unseen.append(float(roc_auc_score(known, logits.double().softmax(-1).amax(1).numpy())))
        line = {
            "head": args.head,
            "encoder": args.encoder,
            "part": args.part,
            "intents": way,
            "shot": shot,
            "draws": args.draws,
            "accuracy": mean_of(accuracies),
            "out_of_scope_auroc": {"maximum_logit": mean_of(areas), "maximum_probability": mean_of(unseen)},
            "seconds": round(time.perf_counter() - began, 1),
            "versions": {"quickstudy": qs.__version__, "torch": torch.__version__, "sklearn": sklearn.__version__},
            "settings": vars(args),
            "command": " ".join(["python", "recipes/intents.py", *sys.argv[1:]]),
        }
        RESULTS.mkdir(parents=True, exist_ok=True)
        with (RESULTS / "intents.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        sys.stderr.write(f"{args.head}, {shot} each: {line['accuracy']}, {line['out_of_scope_auroc']}\n")
