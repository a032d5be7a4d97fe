"""Measure the cases, all contestants in turn, and store what was measured with where and how."""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks import memory, models, timing
from benchmarks.contestants import CHUNKS, CONTESTANTS, LeftOut, disagreement, fair_surroundings, prepare
from benchmarks.models import CASES, Case, Problem
from gradconf.sweeps.machine import commit

RESULTS = Path(__file__).parent / "results"
OURS = ("yardstick", "gradconf", "gradconf_256")  # an error of these ends the run
HOLDS = 4e9  # bytes of gradients on a CPU; contestants that would hold more are left out
TAKES = 10.0  # seconds that J J^T would take at the peak; likewise


def main() -> None:
    """Measure what the command line asks for."""
    asked = _arguments()
    device = torch.device(asked.device)
    fair_surroundings()
    facts, start = provenance(device), time.perf_counter()
    out = Path(asked.out or RESULTS / f"{device.type}.json")
    records = kept(out, facts, asked.cases)
    for name in asked.cases:
        measured = measure(CASES[name], device, asked.rounds)
        records = [r for r in records if r["case"] != name] + measured  # so what is stopped has lost nothing
        records.sort(key=lambda r: list(CASES).index(r["case"]))
        peak = max(r["calibration_gflops"] for r in records)
        for r in records:
            r["fraction_of_peak"] = r["seconds"] and _round(r["gflop"] / r["seconds"] / peak)
        facts |= {"peak_gflops": peak, "took_minutes": round((time.perf_counter() - start) / 60, 1)}
        store(out, facts, records)
    print(f"{len(records)} records in {facts['took_minutes']} minutes: {out}")


def kept(path: Path, facts: dict, cases: list[str]) -> list[dict]:
    """Return what is stored, with its date and commit, unless all is measured anew; refuse another machine's."""
    if not path.exists() or set(cases) >= set(CASES):
        return []
    stored = json.loads(path.read_text(encoding="utf-8"))
    before = stored["provenance"]
    if any(before[key] != facts[key] for key in ("device", "cores", "threads", "system", "packages")):
        sys.exit(f"{path} is of another machine or other versions: name another file with --out, or measure all cases.")
    when = {key: before[key] for key in ("date", "commit")}
    return [when | record for record in stored["records"]]


def measure(case: Case, device: torch.device, rounds: int) -> list[dict]:
    """Measure one case: one record a contestant, with seconds or with the reason why it was left out."""
    problem = models.pose(case, device)
    product, operations = timing.calibration(device)
    peak = operations / min(timing.seconds(product, device) for _ in range(20))
    warm, left_out = {}, {}
    for name in case.contestants:
        try:
            refuse_size(name, problem, peak)
            warm[name] = warm_up(name, problem, device)
        except LeftOut as reason:
            left_out[name] = str(reason)
    calls = {name: one["call"] for name, one in warm.items()} | {"calibration": product}
    often = {name: rounds if one["took"] <= timing.LONG else min(rounds, timing.FEW) for name, one in warm.items()}
    times = timing.interleave(calls, often | {"calibration": rounds}, device)
    speeds = sorted(operations / t / 1e9 for t in times.pop("calibration"))
    shared = {"case": case.name, "samples": case.samples, "parameters": problem.parameters}
    shared |= {"calibration_gflops": _round(speeds[-1]), "calibration_slowest": _round(speeds[0])}
    records = []
    for name in case.contestants:
        one = {"contestant": name, "left_out": left_out.get(name), "seconds": None}
        if name in warm:
            one |= summary(warm[name], times[name], warm["gradconf"]["K"])
            if case.sweep is None:
                chunk = warm[name]["chunk"]
                one["peak_mib"] = _round(memory.peak_mib(case.name, name, device, chunk=chunk))
        records.append(shared | one)
        print(_line(case, one), flush=True)
    return records


def refuse_size(name: str, problem: Problem, peak: float) -> None:
    """Leave out who would hold or compute too much, by arithmetic and before anything is tried."""
    rows, n = CONTESTANTS[name].rows, len(problem.inputs)
    if rows == "none":
        return
    sizes = [p.numel() for p in problem.model.parameters()]
    held = 4 * n * (sum(sizes) if rows == "all" else max(sizes))
    device = problem.inputs.device
    room = 0.8 * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else HOLDS
    if held > room:
        raise LeftOut(f"would hold {held / 1e9:.1f} GB of gradients")
    work = 2 * n**2 * sum(sizes)
    if work / peak > TAKES:
        raise LeftOut(f"would take over {work / peak:.0f} s a call, as J Jᵀ alone is {work / 1e9:.0f} GFLOP")


def warm_up(name: str, problem: Problem, device: torch.device) -> dict:
    """Prepare a contestant, choose its chunk size, and make the first call, whose operations are counted."""
    chunk, tried = choose_chunk(name, problem, device) if CONTESTANTS[name].chunked else (None, None)
    try:
        call = prepare(name, problem, chunk)
        start = time.perf_counter()
        with timing.Operations() as count:
            K = call()
        timing.synchronise(device)
        took = time.perf_counter() - start
    except (RuntimeError, NotImplementedError, AttributeError, TypeError, ValueError) as error:
        if name in OURS:
            raise
        raise LeftOut(f"fails: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    return {"call": call, "K": K, "took": took, "operations": count.total, "chunk": chunk, "chunks": tried}


def choose_chunk(name: str, problem: Problem, device: torch.device) -> tuple[int, dict[str, float]]:
    """Try every chunk size, twice where that is quick, and return the best with all times."""
    n = len(problem.inputs)
    times = {}
    for chunk in [c for c in CHUNKS if c < n] + [n]:
        call = prepare(name, problem, chunk)
        took = timing.seconds(call, device)
        times[chunk] = _round(took if took > timing.LONG / 2 else min(took, timing.seconds(call, device)))
    return min(times, key=times.get), {str(chunk): took for chunk, took in times.items()}


def summary(warm: dict, times: list[float], K: torch.Tensor) -> dict:
    """Summarise one contestant's rounds."""
    ordered = sorted(times)
    facts = {"seconds": _round(ordered[0]), "median": _round(ordered[len(ordered) // 2]), "rounds": len(times)}
    facts["gflop"] = _round(warm["operations"] / 1e9)
    if warm["chunk"] is not None:
        facts |= {"chunk": warm["chunk"], "chunks_tried": warm["chunks"]}
    if warm["K"] is not None and warm["K"] is not K:
        facts["disagreement"] = float(f"{disagreement(K, warm['K']):.1e}")
    return facts


def provenance(device: torch.device) -> dict:
    """Collect where, when and how this was run."""
    packages = ("gradconf", "torch", "numpy", "opacus", "backpack-for-pytorch")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "packages": {name: _version(name) for name in packages},
        "commit": commit(".") or "unknown",
        "command": " ".join(["python -m benchmarks.run", *sys.argv[1:]]),
    }


def store(path: Path, facts: dict, records: list[dict]) -> None:
    """Write JSON with one record a line."""
    lines = ",\n".join(json.dumps(r, ensure_ascii=False) for r in records)
    head = json.dumps(facts, indent=1, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{"provenance": {head},\n"records": [\n{lines}\n]}}\n', encoding="utf-8")


def _line(case: Case, one: dict) -> str:
    if one["seconds"] is None:
        return f"{case.name:12} {one['contestant']:12} left out: {one['left_out']}"
    chunk = f", chunk {one['chunk']}" if "chunk" in one else ""
    memory_ = f", {one['peak_mib']:.0f} MiB" if one.get("peak_mib") is not None else ""
    same = f", differs by {one['disagreement']:.0e}" if "disagreement" in one else ""
    return (
        f"{case.name:12} {one['contestant']:12} {one['seconds']:8.4f} s, {one['gflop']:.4g} GFLOP{memory_}{chunk}{same}"
    )


def _round(number: float | None) -> float | None:
    return number if number is None else float(f"{number:.4g}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="all of them by default")
    parser.add_argument("--rounds", type=int, default=7, help="calls of each; 3 of those that take over 5 s")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--out", help="a JSON file, of which other cases are kept; benchmarks/results/DEVICE.json by default"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
