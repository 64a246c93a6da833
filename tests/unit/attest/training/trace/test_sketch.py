import hashlib
import math

import pytest
import torch

from attest.training.trace.sketch import Sketcher

SHAPES = {"matrix": (96, 256), "vector": (96,), "experts": (4, 32, 48)}


def random(seed):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(*shape, generator=generator) for n, shape in SHAPES.items()}


def test_width_does_not_grow_with_the_model():
    sketcher = Sketcher(SHAPES, side=8)
    assert sketcher.width(["matrix"]) == 64
    assert sketcher.width(["vector"]) == 8
    assert sketcher.width(list(SHAPES)) == 64 + 8 + 64
    assert sketcher.sketch(random(0), list(SHAPES)).shape == (136,)


def test_inner_products_are_kept_on_average():
    # Over many names the signs are drawn anew, and the errors cancel.
    left, right = torch.randn(40, 30), torch.randn(40, 30)
    right = right + left
    found = []
    for number in range(400):
        sketcher = Sketcher({str(number): (40, 30)}, side=8)
        a, b = (sketcher.sketch({str(number): x}, [str(number)]) for x in (left, right))
        found.append(float(a @ b))
    exact = float((left * right).sum())
    error = torch.tensor(found).std() / math.sqrt(len(found))
    assert abs(sum(found) / len(found) - exact) < 4 * float(error)
    assert float(error) < 0.1 * abs(exact)


def test_sketch_is_linear():
    sketcher = Sketcher(SHAPES)
    names = sorted(SHAPES)
    one, two = random(1), random(2)
    both = {name: one[name] + 3 * two[name] for name in SHAPES}
    wanted = sketcher.sketch(one, names) + 3 * sketcher.sketch(two, names)
    assert torch.allclose(sketcher.sketch(both, names), wanted, atol=1e-3)


def test_signs_are_bits_of_shake256_over_the_name():
    # Another implementation gets the same sketch from this sentence alone.
    data = hashlib.shake_256(b"v/0").digest(3 * 5 // 8 + 1)
    bits = [(byte >> (7 - at)) & 1 for byte in data for at in range(8)][:15]
    signs = [(2 * bit - 1) / math.sqrt(3) for bit in bits]
    value = torch.arange(1.0, 6.0)
    wanted = [sum(signs[row * 5 + c] * value[c] for c in range(5)) for row in range(3)]
    found = Sketcher({"v": (5,)}, side=3).sketch({"v": value}, ["v"])
    assert found.tolist() == pytest.approx([float(w) for w in wanted])


def test_no_tensors_give_an_empty_sketch():
    assert Sketcher({}).sketch({}, []).shape == (0,)
