"""Readers of the published binary formats. Nothing is ever unpickled."""

import io
import math
import tarfile

import numpy as np


def read_idx(content: bytes) -> np.ndarray:
    """Read an IDX file of unsigned bytes, the format of MNIST.

    Args:
        content: two zero bytes, the type 8, the number of dimensions, each length as a big-endian int32, the data.

    Returns:
        Array of uint8 with the shape that the header gives.

    Raises:
        ValueError: if the content is not such a file.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError("this is no IDX file of unsigned bytes.")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError("this IDX file is cut short: it ends within its header.")
    shape = np.frombuffer(content[4:start], dtype=">i4").tolist()
    data = np.frombuffer(content, dtype=np.uint8, offset=start)
    if data.size != math.prod(shape):
        raise ValueError(f"this IDX file is cut short: its header promises {tuple(shape)}, it holds {data.size} bytes.")
    return data.reshape(shape)


def read_cifar(content: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Read the archive of CIFAR-10's binary version: records of one label byte and 3 x 32 x 32 pixel bytes.

    Args:
        content: a gzipped tar archive with `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`.

    Returns:
        Training images `(N, 3, 32, 32)`, training labels `(N,)`, test images and test labels, all uint8.

    Raises:
        ValueError: if a batch is missing or cut short.
    """
    train = [f"data_batch_{k}.bin" for k in range(1, 6)]
    records = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            content_of_one = archive.extractfile(member) if name in (*train, "test_batch.bin") else None
            if content_of_one is not None:  # as it is of a folder
                records[name] = np.frombuffer(content_of_one.read(), dtype=np.uint8)
    for name in (*train, "test_batch.bin"):
        if name not in records or records[name].size % 3073 or records[name].size == 0:
            raise ValueError(f"the CIFAR-10 archive holds no whole {name}.")
    together = np.concatenate([records[name] for name in train]).reshape(-1, 3073)
    test = records["test_batch.bin"].reshape(-1, 3073)
    return _images(together), together[:, 0], _images(test), test[:, 0]


def _images(records: np.ndarray) -> np.ndarray:
    return records[:, 1:].reshape(-1, 3, 32, 32)
