"""Write the learner table of the README and the result tables of the docs from benchmarks/results.

python benchmarks/learner_table.py           # write
python benchmarks/learner_table.py --check   # exit status 1 if a page says something else
"""

import json
import math
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
KINDS = {
    "protonet": ("[ProtoNet](docs/protonet.md)", "metric"),
    "matching_net": ("[Matching Networks](docs/matching_net.md)", "metric"),
    "siamese": ("[Siamese network](docs/siamese.md)", "metric"),
    "relation_net": ("[Relation Network](docs/relation_net.md)", "metric"),
    "characters": ("[`characters`](docs/characters.md), ships in the package", "metric"),
    "supervised_contrastive": ("[supervised contrastive](docs/supervised_contrastive.md)", "metric"),
    "triplet_embedding": ("[triplet embedding](docs/triplet_embedding.md), ResNet-12", "metric"),
    "maml": ("[MAML](docs/maml.md), prototype head", "gradient"),
    "maml, transductive": ("MAML, prototype head, batch statistics ᵗ", "gradient"),
    "anil": ('MAML with `adapts="head.*"` (ANIL) ᵗ', "gradient"),
    "anil, from `characters`": ("ANIL that starts from the network of `characters`", "gradient"),
    "meta_sgd, transductive": ("[Meta-SGD](docs/meta_sgd.md) ᵗ", "gradient"),
    "meta_sgd, from a ProtoNet": ("Meta-SGD that starts from a ProtoNet's weights ᵗ", "gradient"),
    "meta_lstm, transductive": ("[LSTM meta-learner](docs/meta_lstm.md) ᵗ", "gradient"),
    "imaml, transductive": ("[iMAML](docs/imaml.md) ᵗ", "gradient"),
    "reptile": ("[Reptile](docs/reptile.md)", "gradient, first order"),
    "reptile, transductive": ("Reptile, batch statistics ᵗ", "gradient, first order"),
    "leo": ("[LEO](docs/leo.md), on a ProtoNet's features", "gradient, latent"),
    "in_context": ("[in-context transformer](docs/in_context.md)", "in-context"),
    "mann": ("[MANN](docs/mann.md), on a ProtoNet's features", "memory"),
    "rare_memory": ("[memory for rare events](docs/rare_memory.md)", "memory"),
    "snail": ("[SNAIL](docs/snail.md), on a ProtoNet's features", "memory"),
    "r2d2": ("[R2-D2](docs/r2d2.md)", "closed form"),
    "meta_opt_net": ("[MetaOptNet](docs/meta_opt_net.md)", "convex solver"),
    "feat, from a ProtoNet": ("[FEAT](docs/feat.md), from a ProtoNet's weights", "metric, set-to-set"),
    "simple_shot, from a ProtoNet": ("[SimpleShot](docs/simple_shot.md), on a ProtoNet's features", "metric, baseline"),
    "tim, from a ProtoNet": ("[TIM](docs/tim.md) ᵗ, on a ProtoNet's features", "metric, transductive"),
    "linear_probe": ("[linear probe](docs/linear_probe.md)", "transfer, baseline"),
    "nearest_neighbour": ("[nearest neighbour](docs/nearest_neighbour.md)", "none, baseline"),
}
OTHERS = {
    ("maml", "sinusoid"): ("[MAML](docs/maml.md)", "gradient"),
    ("meta_sgd", "sinusoid"): ("[Meta-SGD](docs/meta_sgd.md)", "gradient"),
    ("bayesian_maml", "sinusoid"): ("[Bayesian MAML](docs/bayesian_maml.md)", "gradient, Bayesian"),
    ("cnp", "neural_processes"): ("[CNP](docs/cnp.md)", "in-context"),
    ("attentive_np", "neural_processes"): ("[attentive NP](docs/attentive_np.md)", "in-context"),
    ("mann", "mann"): ("[MANN](docs/mann.md), on a ProtoNet's features", "memory"),
}
PUBLISHED = {  # per cent at 5-way and 20-way 1-shot, of a row
    "protonet": (98.8, 96.0, "Snell et al. 2017"),
    "matching_net": (98.1, 93.8, "Vinyals et al. 2016"),
    "siamese": (97.3, 88.2, "Koch et al. 2015, as trained anew by others"),
    "relation_net": (99.6, 97.6, "Sung et al. 2018"),
    "rare_memory": (98.4, 95.0, "Kaiser et al. 2017"),
    "snail": (99.1, 97.6, "Mishra et al. 2018"),
    "r2d2": (98.9, 96.2, "Bertinetto et al. 2019, recalled and not checked"),
    "maml, transductive": (98.7, 95.8, "Finn et al. 2017"),
    "meta_sgd, transductive": (99.5, 95.9, "Li et al. 2017, recalled and not checked"),
    "imaml, transductive": (99.2, 94.5, "Rajeswaran et al. 2019, gradient descent"),
    "reptile": (95.4, 88.1, "Nichol et al. 2018"),
    "reptile, transductive": (97.7, 89.4, "Nichol et al. 2018"),
}
PAGES = (
    "protonet",
    "matching_net",
    "siamese",
    "relation_net",
    "r2d2",
    "meta_opt_net",
    "feat",
    "simple_shot",
    "tim",
    "supervised_contrastive",
    "triplet_embedding",
    "maml",
    "meta_sgd",
    "meta_lstm",
    "imaml",
    "reptile",
    "leo",
    "bayesian_maml",
    "cnp",
    "attentive_np",
    "in_context",
    "mann",
    "rare_memory",
    "snail",
)


def row_of(line: dict[str, Any]) -> str:
    """The row of the README's table that a stored line belongs to."""
    settings = line["settings"]
    if settings.get("adapts") == "head.*":
        return "anil, from `characters`" if settings.get("init") else "anil"
    if line["learner"] == "characters":
        return "characters"
    if settings.get("init"):
        return f"{line['learner']}, from a ProtoNet"
    return f"{line['learner']}, transductive" if line["transductive"] else line["learner"]


def lines(name: str) -> list[dict[str, Any]]:
    """The stored lines of one results file."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def accuracy(score: dict[str, Any] | None) -> str:
    """ "98.60 ± 0.19" in per cent, or a dash."""
    return "–" if score is None else f"{100 * score['accuracy']:.2f} ± {100 * score['ci95']:.2f}"


def over_seeds(scores: list[dict[str, Any]]) -> str:
    """One run: its score. Several: the mean of their means, their mean ci95, and how many."""
    if not scores:
        return "–"
    seeds = [score["training"] and score["training"]["seed"] for score in scores]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{scores[0]['learner']} has several lines of one seed; required is one: drop the older one")
    middle = {key: mean(score[key] for score in scores) for key in ("accuracy", "ci95")}
    return accuracy(middle) + (f" ({len(scores)} seeds)" if len(scores) > 1 else "")


def learner_table() -> str:
    """The table of the README."""
    omniglot = defaultdict(list)
    for line in lines("omniglot"):
        if line["shot"] == 1 and line["settings"].get("head") != "none":
            omniglot[row_of(line), line["way"]].append(line)
    demo = json.loads((RESULTS / "demo.json").read_text())
    head = "| learner | kind | Omniglot 5-way 1-shot | 20-way 1-shot | glyphs 5-way 1-shot | 20-way 1-shot |"
    rows = [head, "|---|---|---|---|---|---|"]
    for name, (title, kind) in KINDS.items():
        ours = [over_seeds(omniglot[name, way]) for way in (5, 20)]
        theirs = [accuracy(demo[f"{way}-way 1-shot"]["scores"].get(name)) for way in (5, 20)]
        if set(ours + theirs) != {"–"}:
            rows.append(f"| {title} | {kind} | {' | '.join(ours + theirs)} |")
    return "\n".join(rows)


def result_table(learner: str) -> str:
    """Every stored line of one learner, and what was published."""
    rows = ["| tasks | protocol | score | training | command |", "|---|---|---|---|---|"]
    for name in ("omniglot", "trials", "sinusoid", "neural_processes", "mann"):
        for line in lines(name):
            if line["learner"] == learner:
                rows.append(_row(line))
    if len(rows) == 2:
        return "No stored line yet."
    known = [name for name in PUBLISHED if name.split(",")[0] == learner]
    if known:
        rows += ["", *(published(name) for name in known), "In brackets: how far the lines above are from it."]
    return "\n".join(rows)


def published(row: str) -> str:
    """What the literature reports for a row, and how far from it the stored lines are."""
    *theirs, source = PUBLISHED[row]
    words = []
    for way, their in zip((5, 20), theirs, strict=True):
        shape = (row, way, 1)
        ours = [100 * at["accuracy"] for at in lines("omniglot") if (row_of(at), at["way"], at["shot"]) == shape]
        by = f"{abs(mean(ours) - their):.2f} {'above' if mean(ours) >= their else 'below'}" if ours else "no line here"
        words.append(f"{their} % at {way}-way ({by})")
    mode = "transductive" if row.endswith("transductive") else "1-shot"
    return f"Published, {mode}: {' and '.join(words)}; {source}, whose split may be another one."


def fsdd_table() -> str:
    """Every stored line of spoken digits."""
    rows = ["| digits, speakers of a task | learner | 5-way 1-shot | training | command |", "|---|---|---|---|---|"]
    for line in lines("fsdd"):
        cost, kind = line["training"], {"speakers": "heard in training", "digits": "held out"}
        split, _, speakers = line["split"].partition(", ")
        minutes = "none" if cost is None else f"{cost['steps']:,} steps, {cost['cpu_seconds'] / 60:.0f} processor min"
        where = f"{kind[split]}, {speakers}"
        rows.append(f"| {where} | {line['learner']} | {accuracy(line)} % | {minutes} | `{line['command']}` |")
    return "\n".join(rows) if len(rows) > 2 else "No stored line yet."


def language_model_table() -> str:
    """Perplexities on unseen domains, from the runs of which all folds are there; the last such run counts."""
    run = _whole_run()
    if not run:
        return "No stored line yet."
    head = "| network | support sentences | plain | memory | fine-tuned | memory to plain | memory to fine-tuned |"
    rows = [head, "|---|---|---|---|---|---|---|"]
    for cell in ("lstm", "gru"):
        for support in (0, 5, 20, 100):
            domains = _domains(run, cell, support)
            shown = [_perplexities(domains, name) for name in ("plain", "memory", "fine-tuned")]
            shown += [_change(domains, "memory", name) if support else "–" for name in ("plain", "fine-tuned")]
            rows.append(f"| {cell.upper()} | {support} | {' | '.join(shown)} |")
    return "\n".join([*rows, "", f"`{run[-1]['command']}`"])


def _whole_run() -> list[dict[str, Any]]:
    """The lines of the last run of which all folds are there."""
    runs = defaultdict(list)
    for line in lines("language_model"):
        runs[json.dumps(line["settings"])].append(line)
    whole = [run for run in runs.values() if {len(_domains(run, cell, 100)) for cell in ("lstm", "gru")} == {10}]
    return whole[-1] if whole else []


def _domains(run: list[dict[str, Any]], cell: str, support: int) -> dict[str, Any]:
    """What was counted in each domain that was judged."""
    found = [line["domains"] for line in run if line["cell"] == cell and line["support"] == support]
    return {domain: counted for domains in found for domain, counted in domains.items()}


def _rate(counted: dict[str, list[float]], unit: str) -> float:
    """Nats for each word or token of one domain."""
    return sum(counted["nats"]) / sum(counted[unit])


def _interval(values: list[float]) -> tuple[float, float, float]:
    """exp of the mean over ten domains, and of both ends of its 95 % interval."""
    half = 2.262 * stdev(values) / math.sqrt(len(values))  # Student's t of 9 degrees of freedom
    return math.exp(mean(values)), math.exp(mean(values) - half), math.exp(mean(values) + half)


def _perplexities(domains: dict[str, Any], name: str) -> str:
    middle, low, high = _interval([_rate(counted[name], "words") for counted in domains.values()])
    token = math.exp(mean(_rate(counted[name], "tokens") for counted in domains.values()))
    return f"{middle:,.0f} ({low:,.0f} to {high:,.0f}); {token:.1f}"


def _change(domains: dict[str, Any], name: str, other: str) -> str:
    found = [_rate(counted[name], "words") - _rate(counted[other], "words") for counted in domains.values()]
    middle, low, high = (100 * (value - 1) for value in _interval(found))
    return f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})"


def tables_table() -> str:
    """Areas under the ROC curve of few labelled rows, and their paired difference."""
    head = "| table | classes | rows | `Ridge` | logistic regression | difference | C chosen by |"
    rows = [head, "|---|---|---|---|---|---|---|"]
    for line in lines("tables"):
        shown = [f"{100 * line['roc_auc'][name]:.2f}" for name in ("ridge", "logistic regression")]
        shown.append(f"{100 * line['difference']:+.2f} ± {100 * line['ci95']:.2f}")
        counted = ", ".join(map(str, line["rows"])) if isinstance(line["rows"], list) else str(line["rows"])
        where = f"{line['table']} | {line['classes'] or '–'} | {counted}"
        rows.append(f"| {where} | {' | '.join(shown)} | {line['settings']['scoring']} |")
    commands = dict.fromkeys(f"`{line['command']}`" for line in lines("tables"))
    return "\n".join([*rows, "", ", ".join(commands)]) if len(rows) > 2 else "No stored line yet."


def intents_table() -> str:
    """Every stored line of intents."""
    rows = [
        "| encoder | head | part | questions each | right answers | out-of-scope AUROC | command |",
        "|" + "---|" * 7,
    ]
    for line in lines("intents"):
        scores = [line["accuracy"], line["out_of_scope_auroc"]["maximum_logit"]]
        shown = [f"{100 * score['mean']:.2f} ± {100 * score['ci95']:.2f}" for score in scores]
        where = f"{line['encoder']} | {line['head']} | {line['part']}, {line['draws']} draws | {line['shot']}"
        rows.append(f"| {where} | {' | '.join(shown)} | `{line['command']}` |")
    return "\n".join(rows) if len(rows) > 2 else "No stored line yet."


def trust_table() -> str:
    """How far the learners that ship can be trusted: some of the stored ways and shots."""
    names = "coverage of 90 % sets | set size | by probability: coverage | AUROC | ECE before → after"
    rows = [
        f"| learner | calibrated by | tasks | {names} | false alarms at 5 % | unknown found |",
        "|" + "---|" * 10,
    ]
    shown = {(5, 5): "", (5, 1): "", (20, 5): "", (7, 4): " (between)"}
    for line in sorted(lines("trust"), key=lambda one: (one["learner"], one["calibrated_on"] != "twin")):
        shape = line["way"], line["shot"]
        if shape not in shown:
            continue
        where = f"{shape[0]}-way {shape[1]}-shot{shown[shape]}" + (", one alphabet" if line["within_alphabet"] else "")
        cells = [
            f"{100 * line['coverage']:.1f} ± {100 * line['coverage_ci95']:.1f} %",
            f"{line['set_size']:.2f}",
            f"{100 * line['sets_by_probability']['coverage']:.1f} %",
            f"{line['auroc']:.3f}",
            f"{100 * line['ece_before']:.1f} → {100 * line['ece_after']:.1f} %",
            f"{100 * line['false_alarms']:.1f} %",
            f"{100 * line['detected']:.1f} %",
        ]
        rows.append(f"| {line['learner']} | {line['calibrated_on']} | {where} | {' | '.join(cells)} |")
    return "\n".join(rows)


def other_table() -> str:
    """The second table of the README: learners of numbers, sequences and text, which have other scores."""
    rows = ["| learner | kind | tasks | score |", "|---|---|---|---|"]
    for (learner, name), (title, kind) in OTHERS.items():
        for line in lines(name):
            if line["learner"] == learner:
                shape, score = _shape_and_score(line)
                rows.append(f"| {title} | {kind} | {_named(line)}: {shape} | {score} |")
    run = _whole_run()
    for cell in ("lstm", "gru") if run else ():
        domains = _domains(run, cell, 100)
        memory, plain, tuned = (
            _perplexities(domains, name).split(";")[0] for name in ("memory", "plain", "fine-tuned")
        )
        title = f"[{cell.upper()} with a memory](docs/language_model.md)"
        score = f"perplexity per word {memory}; without memory {plain}, fine-tuned {tuned}"
        rows.append(f"| {title} | memory | clinc150, domains never seen: 100 sentences | {score} |")
    return "\n".join(rows)


def _row(line: dict[str, Any]) -> str:
    settings, cost = line["settings"], line["training"]
    mode = "transductive" if line["transductive"] else "inductive"
    shape, score = _shape_and_score(line)
    minutes = f"none, on the backbone of {settings.get('init')}"
    if cost is not None:
        minutes = f"{cost['steps']:,} steps, {cost['seconds'] / 60:.0f} min on {cost['threads']} thread"
        minutes += "s" if cost["threads"] > 1 else ""
        if cost["cpu_seconds"] is not None:
            minutes += f" ({cost['cpu_seconds'] / 60:.0f} processor min)"
        if "features_seconds" in cost:
            minutes += "; the ProtoNet before it is not counted"
    protocol = f"{shape}, {line['episodes']:,} episodes, {mode}"
    return f"| {_named(line)} | {protocol} | {score} | {minutes} | `{line['command']}` |"


def _named(line: dict[str, Any]) -> str:
    return line["tasks"] + (f", {line['split']}" if line.get("split") else "")


def _shape_and_score(line: dict[str, Any]) -> tuple[str, str]:
    settings = line["settings"]
    if "presentations" in line:
        score = ", ".join(f"{k}: {accuracy(found)} %" for k, found in line["presentations"].items())
        return f"{line['way']} classes, sequences of {line['length']}, at the k-th presentation", score
    if "accuracy" in line:
        return f"{line['way']}-way {line['shot']}-shot, {line['queries']} queries per class", f"{accuracy(line)} %"
    held = (
        f"the {100 * line['level']:.0f} % interval holds {100 * line['coverage']:.1f} %" if "coverage" in line else ""
    )
    if "log_likelihood" in line:
        score = f"{line['log_likelihood']:.3f} ± {line['ci95']:.3f} nats; {held}"
        if "exact" in line:
            score += f"; the exact posterior: {line['exact']['log_likelihood']:.3f} nats"
        return f"{line['shot'][0]}–{line['shot'][1]} points, {line['queries']} queries", score
    score = f"{line['mean_squared_error']:.3f} ± {line['ci95']:.3f} squared error" + (f"; {held}" if held else "")
    steps = settings["inner_steps"]
    return f"{line['shot']} points, {steps} inner step{'s' if steps > 1 else ''}", score


def with_block(text: str, name: str, table: str) -> str:
    """``text`` with the block between the comments NAME and /NAME replaced."""
    opening = rf"(<!-- {re.escape(name)}[^\n]*-->\n)"
    closing = f"<!-- /{name.split(':')[0]} -->"
    return re.sub(
        opening + f".*?{re.escape(closing)}", lambda m: f"{m.group(1)}{table}\n{closing}", text, flags=re.DOTALL
    )


def main() -> int:
    """Write or check all pages."""
    docs = ROOT / "docs"
    characters = [result_table("characters"), result_table("characters_background")]
    blocks = [
        (ROOT / "README.md", "learners", learner_table()),
        (ROOT / "README.md", "others", other_table()),
        *((docs / f"{learner}.md", f"results: {learner}", result_table(learner)) for learner in PAGES),
        (docs / "ridge.md", "results: ridge", "\n\n".join([tables_table(), intents_table()])),
        (docs / "trust.md", "results: trust", trust_table()),
        (docs / "characters.md", "results: characters", "\n\n".join(characters)),
        (docs / "spoken_digits.md", "results: fsdd", fsdd_table()),
        (docs / "language_model.md", "results: language_model", language_model_table()),
    ]
    stale = []
    for page, name, table in blocks:
        text = page.read_text()
        new = with_block(text, name, table)
        if new != text:
            stale.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(new)
    if "--check" in sys.argv and stale:
        sys.stderr.write(
            f"{', '.join(stale)}: not what benchmarks/results say: run python benchmarks/learner_table.py\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
