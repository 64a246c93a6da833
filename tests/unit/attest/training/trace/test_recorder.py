import stat

import pytest
import torch
from torch import nn

from attest.errors import ConfigurationError, TrainingError
from attest.training.routing import Layout, Route, Schedule
from attest.training.trace.record import Record, sketch_digest
from attest.training.trace.recorder import TraceRecorder
from attest.training.trace.values import trace_digests

UNITS = {"low.weight": "L00", "low.bias": "L00", "high.weight": "L01"}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.low = nn.Linear(6, 5)
        self.high = nn.Linear(5, 4, bias=False)

    def forward(self, x):
        return self.high(self.low(x).tanh())


def schedule(**routes):
    made = {
        name: Route(name, (), tuple(sorted(tensors)), f"sha256:{name}")
        for name, tensors in routes.items()
    }
    return Schedule(Layout("Net", "blocks", 2, UNITS), made, "sha256:schedule")


BOTH = schedule(a=list(UNITS), b=list(UNITS))


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def train(model, recorder, turns, *, make=None, seed=0):
    """Steps of one shared optimizer; what each batch alone asked for is returned."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = (make or (lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)))(
        list(model.parameters())
    )
    asked, notes = [], []
    for principle in turns:
        x = torch.randn(8, 6, generator=generator)
        y = torch.randn(8, 4, generator=generator)
        (model(x) - y).square().mean().backward()
        grads = {n: p.grad for n, p in model.named_parameters()}
        asked.append({n: g.clone() for n, g in grads.items() if g is not None})
        recorder.before(principle)
        optimizer.step()
        notes.append(dict(recorder.after(principle)))
        optimizer.zero_grad()
    return asked, notes


def total(record):
    return {
        name: sum(t.deltas[name] for t in record.tracks.values() if name in t.deltas)
        for name in UNITS
    }


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
        lambda p: torch.optim.AdamW(p, 1e-2, betas=(0.9, 0.95), weight_decay=0.1),
    ],
)
def test_parts_add_up_to_the_whole_change(momentum, make):
    model = Net()
    before = weights(model)
    recorder = TraceRecorder(model, BOTH, momentum=momentum)
    train(model, recorder, "abbaabab", make=make)
    parent = recorder.record.parent(weights(model))
    for name, tensor in before.items():
        change = weights(model)[name] - tensor
        assert torch.allclose(total(recorder.record)[name], change, atol=1e-6)
        assert torch.allclose(parent[name], tensor, atol=1e-6)


def test_momentum_is_given_back_to_the_batches_that_asked_for_it():
    """SGD at a steady rate: a principle's part is that of its gradients alone."""
    model = Net()
    recorder = TraceRecorder(model, BOTH, momentum=0.9)
    turns = "abbaabab"
    asked, _ = train(model, recorder, turns)
    pushed = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    wanted = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for principle, gradient in zip(turns, asked, strict=True):
        for name in UNITS:
            pushed[name] *= 0.9
            if principle == "a":
                pushed[name] += gradient[name]
            wanted[name] -= 0.05 * pushed[name]
    for name in UNITS:
        found = recorder.record.tracks["a"].deltas[name]
        assert torch.allclose(found, wanted[name], atol=1e-6)


def test_principles_of_different_tensors_share_no_momentum():
    model = Net()
    routes = schedule(a=["low.weight", "low.bias"], b=["high.weight"])
    recorder = TraceRecorder(model, routes)
    for principle in "ab":
        recorder.before(principle)
        with torch.no_grad():
            for name in routes.route(principle).tensors:
                model.get_parameter(name).add_(1.0)
        recorder.after(principle)
    tracks = recorder.record.tracks
    assert set(tracks["a"].deltas) == {"low.weight", "low.bias"}
    found = tracks["b"].deltas["high.weight"]
    assert torch.allclose(found, torch.ones(4, 5), atol=1e-6)


def test_frozen_tensors_of_a_route_are_left_out():
    model = Net()
    model.low.weight.requires_grad_(False)
    recorder = TraceRecorder(model, BOTH)
    train(model, recorder, "a")
    assert recorder.record.tracks["a"].names == ("high.weight", "low.bias")


def test_unrouted_steps_have_a_track_of_their_own():
    model = Net()
    recorder = TraceRecorder(model, BOTH)
    train(model, recorder, [None, None])
    assert set(recorder.record.tracks) == {""}
    assert recorder.record.tracks[""].steps == [0, 1]


def test_note_is_the_digest_of_what_is_kept():
    model = Net()
    recorder = TraceRecorder(model, BOTH)
    _, notes = train(model, recorder, "ab")
    for principle, note in zip("ab", notes, strict=True):
        track = recorder.record.tracks[principle]
        wanted = sketch_digest(track.sketches[0], track.scales[0])
        assert note == {"sketch": wanted}
    assert notes[0] != notes[1]


def test_change_that_is_not_finite_stops_the_run():
    model = Net()
    recorder = TraceRecorder(model, BOTH)
    recorder.before("a")
    with torch.no_grad():
        model.high.weight[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="not finite"):
        recorder.after("a")


def test_shards_are_refused():
    model = Net()
    model.high.weight.placements = ()  # what marks a DTensor
    recorder = TraceRecorder(model, BOTH)
    with pytest.raises(TrainingError, match="sharded"):
        recorder.before("a")


def test_state_goes_on_to_the_same_bytes(tmp_path):
    straight, stopped = Net(), Net()
    recorder = TraceRecorder(straight, BOTH)
    plain = lambda p: torch.optim.SGD(p, 0.05)  # noqa: E731
    train(straight, recorder, "ab", make=plain)
    first = TraceRecorder(stopped, BOTH)
    train(stopped, first, "ab", make=plain)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = TraceRecorder(stopped, BOTH)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(straight, recorder, "ba", make=plain, seed=1)
    train(stopped, second, "ba", make=plain, seed=1)
    assert recorder.write(tmp_path / "one") == second.write(tmp_path / "two")


def test_written_record_reads_back(tmp_path):
    model = Net()
    recorder = TraceRecorder(model, BOTH, side=4)
    train(model, recorder, "abb")
    digests = recorder.write(tmp_path / "trace")
    assert digests == trace_digests(tmp_path / "trace")
    found, made = Record.read(tmp_path / "trace"), recorder.record
    assert (found.side, found.momentum, found.steps) == (4, 0.9, 3)
    assert list(found.units) == list(UNITS)
    assert found.threshold == made.threshold
    for principle, track in made.tracks.items():
        other = found.tracks[principle]
        assert other.names == track.names
        assert other.steps == track.steps
        assert all(torch.equal(other.deltas[n], track.deltas[n]) for n in track.names)
        assert all(map(torch.equal, other.sketches, track.sketches))


def test_only_the_owner_reads_the_files(tmp_path):
    model = Net()
    recorder = TraceRecorder(model, BOTH)
    train(model, recorder, "ab")
    recorder.write(tmp_path / "trace")
    modes = {stat.S_IMODE(f.stat().st_mode) for f in (tmp_path / "trace").iterdir()}
    assert modes == {0o600}


def test_every_byte_of_every_file_is_bound(tmp_path):
    model = Net()
    recorder = TraceRecorder(model, BOTH)
    train(model, recorder, "ab")
    digests = recorder.write(tmp_path / "trace")
    for file in (tmp_path / "trace").iterdir():
        data = file.read_bytes()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert trace_digests(tmp_path / "trace") != digests
        file.write_bytes(data)
    (tmp_path / "trace" / "deltas-c.safetensors").write_bytes(b"")
    assert trace_digests(tmp_path / "trace") != digests


@pytest.mark.parametrize("damage", ["gone", "cut", "format", "track"])
def test_incomplete_trace_is_named(tmp_path, damage):
    model = Net()
    recorder = TraceRecorder(model, BOTH)
    train(model, recorder, "ab")
    recorder.write(tmp_path / "trace")
    sketches = tmp_path / "trace" / "sketches.safetensors"
    data = sketches.read_bytes()
    if damage == "gone":
        sketches.unlink()
    elif damage == "cut":
        sketches.write_bytes(data[:-5])
    elif damage == "format":
        sketches.write_bytes(data.replace(b"attest-trace/1", b"attest-trace/2"))
    else:
        (tmp_path / "trace" / "deltas-a.safetensors").unlink()
    with pytest.raises(ConfigurationError) as caught:
        Record.read(tmp_path / "trace")
    assert str(tmp_path / "trace") in str(caught.value)
