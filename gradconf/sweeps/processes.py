"""Processes on this machine that run configurations side by side."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import torch
from tqdm import tqdm

FLUSH = 1.0  # seconds for the executor to forget cancelled runs, of which it else complains when processes end


@contextmanager
def pool(workers: int, *, threads: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """Start processes that end with this one, even if it is killed.

    On one GPU they share the card: networks that are too small for it by themselves train side by side.

    Args:
        workers: processes.
        threads: of each; this machine's cores shared out by default.

    Yields:
        The executor. Should the body fail, runs that have begun are stopped.

    Raises:
        ValueError: if there is no worker or no thread.
    """
    threads = max(1, (os.cpu_count() or 1) // max(1, workers)) if threads is None else threads
    if workers < 1 or threads < 1:
        raise ValueError(f"workers and threads must be at least 1, not {workers} and {threads}.")
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(threads,)
    )
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        time.sleep(FLUSH)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        executor.shutdown()


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    tqdm.set_lock(threading.RLock())  # its own would be left behind by a process that is stopped
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its children
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
