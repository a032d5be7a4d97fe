"""What the rows of a sweep were, in words: networks, data, and where they ran."""

from collections import Counter
from collections.abc import Sequence

from gradconf.sweeps.execution import DIVERGED, FAILED
from gradconf.sweeps.reading import network
from gradconf.sweeps.tables import Row

SIZES = {"full": "the paper's size", "small": "smaller than the paper's", "cpu": "a reduced set for one CPU core"}
VARIANTS = {(False, False): "plain", (True, False): "batch norm", (False, True): "skip", (True, True): "both"}
IMAGES = {"cifar10_jpeg": "CIFAR-10 (JPEG-compressed copy)", "cifar10": "CIFAR-10", "fashion_mnist": "Fashion-MNIST"}
NAMES = {
    "train_loss": "training loss",
    "test_accuracy": "test accuracy",
    "min_cosine": "smallest cosine",
    "std": "standard deviation of the cosines",
    "q01": "1% quantile of the cosines",
    "disjoint_q01": "1% quantile, all pairs of disjoint mini-batches",
    "disjoint_std": "standard deviation, all pairs of disjoint mini-batches",
}
HEADS = ("runs", "rate", "training loss", "test accuracy", "smallest cosine", "deviation", "1% of all")
RATE = (
    "Each network is shown at the rate with the smallest training loss{tried}; means ± standard deviations over seeds."
)
COLUMNS = (
    "*Smallest cosine* and *deviation* are of 100 random pairs of mini-batches, *1% of all* is the 1% quantile of all "
    "pairs of up to 32 disjoint ones."
)


def complete(rows: Sequence[Row]) -> list[Row]:
    """Keep the runs of those seeds with which a network was run at all of its rates, so that rates can be compared.

    Args:
        rows: of a table that may still grow.

    Returns:
        Rows, in their order; all of those of a network without such a seed.
    """
    tried: dict[str, dict[int, set[float]]] = {}
    for row in rows:
        told = row["configuration"]
        tried.setdefault(network(row), {}).setdefault(told["seed"], set()).add(told["learning_rate"])
    whole = {
        name: {seed for seed, rates in seeds.items() if rates == set.union(*seeds.values())} or set(seeds)
        for name, seeds in tried.items()
    }
    return [row for row in rows if row["configuration"]["seed"] in whole[network(row)]]


def outcome(rows: Sequence[Row]) -> str:
    """Say how the runs of a network ended that has no rate at which all of its seeds finished.

    Args:
        rows: of the network, at all rates and seeds.

    Returns:
        Whether they diverged or failed, and why they failed.
    """
    statuses = Counter(row["status"] for row in rows)
    if set(statuses) == {DIVERGED}:
        return "diverged at every rate tried"
    reasons = dict.fromkeys(_reason(row) for row in rows if row["status"] == FAILED)
    why = f" ({'; '.join(reasons)})" if reasons else ""
    if set(statuses) == {FAILED}:
        return f"failed{why}"
    counted = ", ".join(f"{number} {status}" for status, number in statuses.items())
    return f"at no rate with all seeds: {counted}{why}"


def _reason(row: Row) -> str:
    told = " ".join(str(row.get("reason") or "no reason given").split()).replace("|", "/")
    return told if len(told) <= 80 else f"{told[:79]}…"


def variant(row: Row) -> str:
    """Say what kind of network a run had.

    Args:
        row: of a table of `gradconf.sweeps`.

    Returns:
        Its layers for a residual network, activation and initialisation for an MLP, else nothing.
    """
    told = row["configuration"]
    if told["model"] == "wrn":
        return VARIANTS[told["batch_norm"], told["skip"]]
    return f"{told['activation']}, {told['init']}" if told["model"] == "mlp" else ""


def briefly(row: Row, size: str) -> str:
    """Say in few words on what networks were trained.

    Args:
        row: any of a table.
        size: of the table.

    Returns:
        Size and images.
    """
    told = row["configuration"]
    images = f"{told['train_size']:,} images" if told["train_size"] else "all images"
    pixels = f", averaged over {told['pool']} × {told['pool']} pixels" if told["pool"] > 1 else ""
    return f"{SIZES[size]}, {images} of {IMAGES.get(told['dataset'], told['dataset'])}{pixels}"


def described(row: Row, size: str) -> str:
    """Say in some words what was trained on what.

    Args:
        row: any of a table.
        size: of the table.

    Returns:
        Size, images, epochs and mini-batches.
    """
    told = row["configuration"]
    batches = f"mini-batches of {told['batch_size']} in training and {told['pair_size']} in measurement"
    return f"{briefly(row, size)}, {told['epochs']} epochs, {batches}"


def measured_on(rows: Sequence[Row]) -> str:
    """Say how many runs there are, and how long, on what and with what they were made.

    Args:
        rows: of a table.

    Returns:
        A sentence.
    """
    statuses = Counter(row["status"] for row in rows)
    hours = sum(row["seconds"] or 0 for row in rows) / 3600
    where = Counter(
        f"{p['device']}, {p['threads']} thread{'s' if p['threads'] > 1 else ''}, torch {p['torch']}, gradconf "
        f"{p['gradconf']} ({(p['commit'] or 'no commit')[:12]}), {p['date'][:10]}"
        for row in rows
        if (p := row["provenance"])
    )
    why = "; ".join(dict.fromkeys(_reason(row) for row in rows if row["status"] == FAILED))
    told = {FAILED: f" ({why})"}
    counted = ", ".join(f"{number} {status}{told.get(status, '')}" for status, number in statuses.items())
    memory = max((row["peak_memory"] or 0 for row in rows), default=0) / 1e9
    return f"Runs: {counted}; {hours:.2g} hours, at most {memory:.1f} GB, on {'; '.join(where)}."


def data(rows: Sequence[Row]) -> str:
    """Say where the data come from.

    Args:
        rows: of a table.

    Returns:
        A sentence.
    """
    return f"Data: {next((row['data'] for row in rows if row.get('data')), 'unknown')}."
