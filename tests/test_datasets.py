import dataclasses
import gzip
import hashlib
import io
import os
import pickle
import random
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from gradconf.datasets import NAMES, jpeg, load, sources
from gradconf.datasets.files import File
from gradconf.datasets.formats import read_cifar, read_idx

FASHION = Path("/usr/share/datasets/fashion-mnist")
STEMS = tuple(sources.MNIST)
CIFAR = "cifar-10-binary.tar.gz"
BATCHES = [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise requests.ConnectionError("no network")

    monkeypatch.setattr("pooch.retrieve", refuse)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    return tmp_path / "gradconf"


@pytest.fixture
def mnist(monkeypatch):
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (20, 28, 28)), np.arange(20) % 10, rng.integers(0, 256, (10, 28, 28)), np.arange(10)
    contents = {stem: idx(array) for stem, array in zip(STEMS, arrays, strict=True)}
    monkeypatch.setattr(sources, "MNIST", {stem: ("0" * 32, sha256(c)) for stem, c in contents.items()})
    return arrays, contents


@pytest.fixture
def cifar(monkeypatch):
    records = np.random.default_rng(0).integers(0, 256, (6, 4, 3073)).astype(np.uint8)
    records[:, :, 0] %= 10
    archive = tar({f"cifar-10-batches-bin/{name}": r.tobytes() for name, r in zip(BATCHES, records, strict=True)})
    monkeypatch.setattr(sources, "File", lambda name, url, published, _: File(name, url, published, sha256(archive)))
    return records, archive


@pytest.fixture
def pictures(monkeypatch):
    """One colour a picture, which JPEG keeps to within rounding, and the files of the copy."""
    colours = np.random.default_rng(0).integers(0, 256, (12, 3)).astype(np.uint8)
    names = [f"{part}/{c}/{k:04}.jpg" for part in ("test", "train") for c in ("bird", "cat") for k in range(3)]
    files = {name: compressed(colour) for name, colour in zip(names, colours, strict=True)}
    monkeypatch.setattr(jpeg, "SHA256", sha256(b"".join(files.values())))
    return np.broadcast_to(colours[:, :, None, None], (12, 3, 32, 32)), files


def compressed(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), tuple(colour.tolist())).save(buffer, "JPEG", quality=100, subsampling=0)
    return buffer.getvalue()


def put_pictures(folder, files, packed):
    if packed:
        shuffled = dict(sorted(files.items(), reverse=True))  # an archive may have any order
        (folder / jpeg.ARCHIVE).write_bytes(tar({f"./{name}": c for name, c in shuffled.items()}, mode="w:xz"))
    else:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def tar(files, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def put(folder, contents, *, packed=True):
    for stem, content in contents.items():
        (folder / (f"{stem}.gz" if packed else stem)).write_bytes(gzip.compress(content) if packed else content)


def tensors(data):
    return [data.train_inputs, data.train_targets, data.test_inputs, data.test_targets]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def check_against(data, images, labels, test_images, test_labels):
    axes = (0, *range(2, images.ndim))
    mean, std = images.mean(axes, keepdims=True), images.std(axes, keepdims=True)
    np.testing.assert_allclose(data.train_inputs, (images - mean) / std, atol=1e-5)
    np.testing.assert_allclose(data.test_inputs, (test_images - mean) / std, atol=1e-5)
    assert data.train_targets.tolist() == labels.tolist()
    assert data.test_targets.tolist() == test_labels.tolist()


@pytest.mark.parametrize(("name", "shape"), [("digits", (1437, 1, 8, 8)), ("mnist1d", (4000, 1, 40))])
def test_packaged_data_are_standardised_and_split_once_and_for_all(name, shape):
    data = load(name)
    assert [t.dtype for t in tensors(data)] == [torch.float32, torch.int64] * 2
    assert data.train_inputs.shape == shape
    assert data.test_inputs.shape == ({"digits": 360, "mnist1d": 1000}[name], *shape[1:])
    assert data.features == np.prod(shape[1:])
    assert set(data.train_targets.tolist()) == set(data.test_targets.tolist()) == set(range(data.classes))
    assert data.train_inputs.double().mean() == pytest.approx(0, abs=1e-5)
    assert data.train_inputs.double().std(correction=0) == pytest.approx(1, abs=1e-5)
    assert same(data, load(name, seed=1))


def test_digits_are_split_without_overlap_or_loss():
    from sklearn.datasets import load_digits

    data, pixels = load("digits"), load_digits().data
    both = torch.cat([data.train_inputs, data.test_inputs]).flatten(1).double()
    restored = (both - both.min()) / (both.max() - both.min()) * pixels.max()
    assert len(both) == 1797
    assert sorted(restored.round().tolist()) == sorted(pixels.tolist())


@pytest.mark.parametrize("balanced", [False, True])
def test_subsets_follow_their_seed_and_hold_distinct_samples_of_the_whole(balanced):
    whole = load("digits")
    a, again, other = (load("digits", train_size=50, test_size=20, balanced=balanced, seed=s) for s in (3, 3, 4))
    assert same(a, again)
    assert not torch.equal(a.train_inputs, other.train_inputs)
    assert not torch.equal(a.test_inputs, other.test_inputs)
    row = (a.train_inputs[:, None] == whole.train_inputs).flatten(2).all(2).int().argmax(1)
    assert row.unique().shape == (50,)
    assert torch.equal(whole.train_inputs[row], a.train_inputs)
    assert torch.equal(whole.train_targets[row], a.train_targets)


def test_balanced_subsets_hold_every_class_equally_and_mixed():
    data = load("digits", train_size=70, balanced=True)
    assert data.train_targets.bincount().tolist() == [7] * 10
    assert len(set(data.test_targets.bincount().tolist())) == 1
    assert data.train_targets.tolist() != sorted(data.train_targets.tolist())


@pytest.mark.parametrize("size", [0, -1, 1438])
def test_a_size_that_does_not_fit_is_refused(size):
    with pytest.raises(ValueError, match=rf"between 1 and 1437 .* not {size}\.$"):
        load("digits", train_size=size)


@pytest.mark.parametrize("size", [15, 1430])
def test_a_balanced_size_that_does_not_fit_is_refused(size):
    with pytest.raises(ValueError, match=rf"multiple of 10 samples, at most 1390 here, not {size}\.$"):
        load("digits", train_size=size, balanced=True)


def test_mnist1d_leaves_the_global_generators_as_they_were():
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    load("mnist1d", train_size=10)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=rf"^unknown data set 'imagenet'[^.]*{', '.join(NAMES)}\.$"):
        load("imagenet")


def test_a_folder_for_packaged_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'digits' needs no files"):
        load("digits", folder=tmp_path)


@pytest.mark.parametrize(("name", "files"), [("mnist", STEMS), ("fashion_mnist", STEMS), ("cifar10", [CIFAR])])
def test_without_network_it_says_what_to_put_where(name, files, offline):
    with pytest.raises(FileNotFoundError, match=rf"https?://\S+/{files[0]}") as caught:
        load(name)
    assert all(word in str(caught.value) for word in [*files, str(offline / name), "ConnectionError"])


def test_nothing_is_fetched_when_a_folder_is_given(offline, tmp_path, mnist):
    put(tmp_path, {stem: content for stem, content in mnist[1].items() if stem != STEMS[2]})
    with pytest.raises(FileNotFoundError, match=f"{STEMS[2]}.gz is needed but it is not there"):
        load("mnist", folder=tmp_path)


@pytest.mark.parametrize("harm", ["garbage", "truncated", "other", "pickle"])
def test_a_corrupted_file_is_named_and_never_used(harm, tmp_path, mnist):
    put(tmp_path, mnist[1])
    path, marker = tmp_path / f"{STEMS[0]}.gz", tmp_path / "unpickled"
    harmed = {
        "garbage": b"garbage",
        "truncated": path.read_bytes()[:500],
        "other": gzip.compress(mnist[1][STEMS[2]]),
        "pickle": gzip.compress(pickle.dumps(Bomb(marker))),
    }
    path.write_bytes(harmed[harm])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is corrupted"):
        load("mnist", folder=tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_is_read_from_its_files(packed, tmp_path, mnist):
    (images, labels, test_images, test_labels), contents = mnist
    put(tmp_path, contents, packed=packed)
    check_against(load("mnist", folder=str(tmp_path)), images[:, None], labels, test_images[:, None], test_labels)


def test_cifar10_is_read_from_its_archive_and_only_from_a_whole_one(tmp_path, cifar):
    records, archive = cifar
    (tmp_path / CIFAR).write_bytes(archive)
    labels, images = records[:, :, 0], records[:, :, 1:].reshape(6, 4, 3, 32, 32)
    train = images[:5].reshape(-1, 3, 32, 32)
    check_against(load("cifar10", folder=tmp_path), train, labels[:5].flatten(), images[5], labels[5])
    (tmp_path / CIFAR).write_bytes(archive[:-100])
    with pytest.raises(ValueError, match=f"{CIFAR} is corrupted"):
        load("cifar10", folder=tmp_path)


@pytest.mark.parametrize("packed", [True, False])
def test_the_jpeg_copy_is_read_from_a_clone_or_an_archive_by_class(packed, tmp_path, pictures):
    images, files = pictures
    put_pictures(tmp_path, files, packed)
    data = load("cifar10_jpeg", folder=tmp_path)
    assert data.train_inputs.is_contiguous()
    assert data.train_targets.tolist() == data.test_targets.tolist() == [0] * 3 + [1] * 3
    test, train = images.astype(float).reshape(2, 6, 3, 32, 32)
    mean, std = train.mean((0, 2, 3), keepdims=True), train.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(data.train_inputs, (train - mean) / std, atol=0.04)  # a pixel is off by 2 at most
    np.testing.assert_allclose(data.test_inputs, (test - mean) / std, atol=0.04)
    assert all(word in data.provenance for word in ("JPEG-compressed copy", jpeg.SOURCE, "Pillow"))
    assert same(
        load("cifar10_jpeg", folder=tmp_path, train_size=4, balanced=True),
        load("cifar10_jpeg", folder=tmp_path, train_size=4, balanced=True),
    )


@pytest.mark.parametrize("given", [True, False])
def test_without_the_jpeg_copy_it_says_in_one_sentence_how_to_get_it(given, offline, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"^[^.]*'git clone {jpeg.SOURCE}'[^\n]*packed\.$") as caught:
        load("cifar10_jpeg", folder=tmp_path if given else None)
    assert str(tmp_path if given else offline / "cifar10_jpeg") in str(caught.value)
    assert jpeg.ARCHIVE in str(caught.value)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("harm", ["missing", "changed", "cut"])
def test_a_jpeg_copy_that_is_not_whole_is_never_used(harm, packed, tmp_path, pictures):
    files = dict(pictures[1])
    name = next(iter(files))
    files |= {name: files[name][:-9] + bytes(9)} if harm == "changed" else {}
    put_pictures(tmp_path, files, packed)
    path = tmp_path / (jpeg.ARCHIVE if packed else name)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    if harm == "missing":
        (path.write_bytes(tar({})) if packed else path.unlink())
    with pytest.raises(ValueError, match=f"{re.escape(str(path if packed else tmp_path))} is corrupted"):
        load("cifar10_jpeg", folder=tmp_path)


@pytest.mark.skipif("GRADCONF_CIFAR10_JPEG" not in os.environ, reason="GRADCONF_CIFAR10_JPEG names no folder")
def test_the_published_jpeg_copy():
    data = load("cifar10_jpeg", folder=os.environ["GRADCONF_CIFAR10_JPEG"])
    assert data.train_inputs.shape == (50_000, 3, 32, 32)
    assert data.train_targets.bincount().tolist() == [5000] * 10
    assert data.test_targets.bincount().tolist() == [1000] * 10


@pytest.mark.parametrize("magic", [b"\x00\x00\x0d\x01", b"\x1f\x8b\x08\x01", b"\x00"])
def test_read_idx_refuses_other_formats(magic):
    with pytest.raises(ValueError, match="no IDX file of unsigned bytes"):
        read_idx(magic + bytes(8))


@pytest.mark.parametrize("length", [4, 6, 8, 16, 17, 27])
def test_read_idx_refuses_what_is_cut_short(length):
    array = np.arange(12).reshape(2, 2, 3)
    assert read_idx(idx(array)).tolist() == array.tolist()
    with pytest.raises(ValueError, match="cut short"):
        read_idx(idx(array)[:length])


def test_read_idx_says_the_promised_shape_in_plain_numbers():
    with pytest.raises(ValueError, match=r"promises \(2, 3\), it holds 5 bytes"):
        read_idx(idx(np.zeros((2, 3)))[:-1])


@pytest.mark.parametrize("name", [BATCHES[1], BATCHES[5]])
@pytest.mark.parametrize("size", [None, 0, 3072])
def test_read_cifar_refuses_a_batch_that_is_not_whole(name, size):
    files = {batch: bytes(3073) for batch in BATCHES if batch != name}
    with pytest.raises(ValueError, match=f"no whole {name}"):
        read_cifar(tar(files if size is None else files | {name: bytes(size)}))


@pytest.mark.skipif(not FASHION.is_dir(), reason=f"the files of Fashion-MNIST are not in {FASHION}")
def test_the_published_fashion_mnist():
    data = load("fashion_mnist", folder=FASHION)
    assert data.train_inputs.shape == (60_000, 1, 28, 28)
    assert data.train_targets.bincount().tolist() == [6000] * 10
    assert data.test_targets.bincount().tolist() == [1000] * 10


def test_a_data_set_moves_and_shows_itself_and_is_frozen():
    data = load("digits", train_size=3, test_size=2)
    assert {t.device.type for t in tensors(data.to("meta"))} == {"meta"}
    assert {t.device.type for t in tensors(data)} == {"cpu"}
    assert repr(data) == "Dataset(digits: 3 training and 2 test samples of shape 1 x 8 x 8, 10 classes)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"
