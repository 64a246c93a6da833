import pytest
import torch
from torch import nn

from attest.errors import TrainingError
from attest.training.hf.optimizer import RoutedOptimizer
from attest.training.hf.rows import Feed, Tagged, row_of, rows_of


def test_a_collator_keeps_ids_and_principles_beside_the_tensors():
    def collate(examples):
        assert all(example.keys() == {"x"} for example in examples)
        return {"x": torch.tensor([example["x"] for example in examples])}

    rows = [{"id": 7, "principle": "a", "x": 1}, {"id": "b", "principle": "b", "x": 2}]
    batch = Tagged(collate)(rows)
    assert batch["x"].tolist() == [1, 2]
    assert (batch["id"], batch["principle"]) == (["7", "b"], ["a", "b"])


@pytest.mark.parametrize("missing", ["id", "principle"])
def test_rows_that_lack_a_column(missing):
    row = {"id": "1", "principle": "a", "x": 0}
    del row[missing]
    with pytest.raises(TrainingError, match=f"expected a column '{missing}'"):
        row_of(row)
    with pytest.raises(TrainingError, match=f"expected a column '{missing}'"):
        rows_of([row])


def feed_of(*batches):
    feed = Feed()
    for batch in batches:
        feed.add_tensors(batch)
    return feed.fed().batch


def test_the_digest_covers_what_the_model_is_given():
    x, y = torch.arange(6), torch.zeros(6, dtype=torch.int64)
    digest = feed_of({"x": x, "y": y, "text": "not a tensor", "number": 1})
    assert digest == feed_of({"y": y, "x": x})
    others = [
        {"x": y, "y": x},
        {"x": x.reshape(2, 3), "y": y},
        {"x": x.to(torch.int32), "y": y},
        {"x": x},
    ]
    assert digest not in [feed_of(other) for other in others]
    assert feed_of({"x": x}, {"x": y}) != feed_of({"x": y}, {"x": x})


def test_losses_add_up_and_name_their_rows():
    feed = Feed()
    feed.add_rows([("a", "p"), ("b", "q")])
    feed.add_loss(torch.tensor(0.25))
    feed.add_loss(torch.tensor(0.5))
    assert feed.fed().loss == 0.75
    assert (feed.fed().samples, feed.fed().principles) == (["a", "b"], ["p", "q"])
    assert feed.not_finite() == []
    feed.add_loss(torch.tensor(float("nan")))
    assert feed.not_finite() == ["a", "b"]


def test_the_face_of_all_optimizers():
    steps = []
    parameter = nn.Parameter(torch.zeros(2))
    face = RoutedOptimizer(
        [parameter], 0.5, apply=steps.append, save=lambda: {"steps": len(steps)}
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(face, lambda step: 1 / (1 + step))
    for _ in range(2):
        face.step()
        scheduler.step()
    assert steps == [0.5, 0.25]
    other = RoutedOptimizer([parameter], 0.1, apply=steps.append, save=lambda: None)
    other.load_state_dict(face.state_dict())
    assert other.loaded == {"steps": 2}
    other.step()
    assert steps[-1] == pytest.approx(0.5 / 3)
    with pytest.raises(TrainingError, match="closure"):
        face.step(lambda: 1.0)
