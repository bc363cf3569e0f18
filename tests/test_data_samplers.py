"""Samplers: what a batch holds, resuming to the same batch, and the errors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from siamese_fast.data import EpisodeSampler, PairSampler, PKSampler

LABELS = torch.tensor([7, 3, 3, 7, 5, 3, 7, 7, 5, 9])  # 3 x 3, 4 x 7, 2 x 5, 1 x 9
MAKERS = {
    "pairs": lambda seed: PairSampler(LABELS, 16, seed),
    "pk": lambda seed: PKSampler(LABELS, 3, 2, seed),
}


def batches(sampler, count):
    return [
        torch.stack([part.float() for part in (b if isinstance(b, tuple) else (b,))])
        for b, _ in zip(sampler, range(count), strict=False)
    ]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_function_of_the_seed(make):
    one, same, other = (batches(make(seed), 5) for seed in (1, 1, 2))
    assert all(a.equal(b) for a, b in zip(one, same, strict=True))
    assert not all(a.equal(b) for a, b in zip(one, other, strict=True))
    generator = torch.Generator().manual_seed(1)
    assert all(a.equal(b) for a, b in zip(one, batches(make(generator), 5), strict=True))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_resume_to_the_same_bits(make, tmp_path):
    sampler = make(3)
    batches(sampler, 4)
    torch.save(sampler.state_dict(), tmp_path / "state.pt")
    expected = batches(sampler, 6)
    resumed = make(99)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert all(a.equal(b) for a, b in zip(expected, batches(resumed, 6), strict=True))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_global_seed_is_left_alone(make):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    batches(make(0), 2)
    assert torch.rand(3).equal(expected)


def test_pairs_are_balanced_and_true():
    sampler = PairSampler(LABELS, 15)
    for _, (a, b, target) in zip(range(50), sampler, strict=False):
        assert a.dtype == b.dtype == torch.int64 and target.dtype == torch.float32
        assert int(target.sum()) == 7 and len(target) == 15
        assert (LABELS[a] == LABELS[b]).float().equal(target)
        assert (a != b).all()


def test_pairs_reach_every_class_and_example_alike():
    sampler = PairSampler(LABELS, 4000)
    a, b, target = next(sampler)
    positive = LABELS[a[target == 1]]
    shares = torch.tensor([(positive == label).float().mean() for label in (3, 5, 7, 9)])
    assert torch.allclose(shares, torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0]), atol=0.05)
    negative = torch.stack([LABELS[a[target == 0]], LABELS[b[target == 0]]])
    for first in (3, 5, 7, 9):
        for second in {3, 5, 7, 9} - {first}:
            share = ((negative[0] == first) & (negative[1] == second)).float().mean()
            assert share == pytest.approx(1 / 12, abs=0.03)
    assert set(a.tolist()) == set(b.tolist()) == set(range(10))


def test_exclusive_classes_never_meet():
    labels = torch.arange(6).repeat_interleave(3)
    exclusive = torch.tensor([0, 1, 0, 1, 2, 2])
    pairs = PairSampler(labels, 2000, exclusive=exclusive)
    a, b, target = next(pairs)
    one, other = exclusive[labels[a]], exclusive[labels[b]]
    assert (one != other)[target == 0].all()
    assert set(zip(labels[a].tolist(), labels[b].tolist(), strict=True)) == {
        (i, j) for i in range(6) for j in range(6) if i == j or exclusive[i] != exclusive[j]
    }
    seen = torch.zeros(6)
    for _, batch in zip(range(300), PKSampler(labels, 3, 2, exclusive=exclusive), strict=False):
        classes = labels[batch].view(3, 2)[:, 0]
        assert len(exclusive[classes].unique()) == 3
        seen[classes] += 1
    assert (seen / 300 - 0.5).abs().max() < 0.12


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.integers(-3, 6), min_size=1, max_size=40),
    p=st.integers(1, 5),
    k=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)
def test_pk_batches(labels, p, k, seed):
    tensor = torch.tensor(labels)
    if len(set(labels)) < p:
        with pytest.raises(ValueError, match="p must be at most"):
            PKSampler(tensor, p, k, seed)
        return
    batch = next(PKSampler(tensor, p, k, seed)).view(p, k)
    classes = tensor[batch]
    assert (classes == classes[:, :1]).all()
    assert len(classes[:, 0].unique()) == p
    for row in batch:
        count = labels.count(int(tensor[row[0]]))
        times = row.unique(return_counts=True)[1]
        assert len(times) == min(count, k)
        assert int(times.max()) - int(times.min()) <= 1, "repeats are spread evenly"


def test_pk_examples_of_a_class_are_drawn_alike():
    labels = torch.zeros(8, dtype=torch.int64)
    drawn = torch.cat([next(sampler) for sampler in [PKSampler(labels, 1, 2)] for _ in range(2000)])
    assert (drawn.bincount(minlength=8) / 2000 - 0.25).abs().max() < 0.05


def test_episodes_hold_what_they_say():
    labels = torch.arange(10).repeat_interleave(5)
    sampler = EpisodeSampler(labels, n_way=4, k_shot=2, n_query=3, n_episodes=20, seed=1)
    assert len(sampler) == 20 and len(list(sampler)) == 20
    for episode in sampler:
        assert len(episode.support) == 8 and len(episode.query) == 12
        assert labels[episode.support].equal(episode.classes[episode.support_labels])
        assert labels[episode.query].equal(episode.classes[episode.query_labels])
        assert len(set(episode.support.tolist()) | set(episode.query.tolist())) == 20
        assert len(episode.classes.unique()) == 4


def test_episode_list_is_fixed():
    sampler = EpisodeSampler(LABELS, 2, 1, None, 5, seed=4)
    again = EpisodeSampler(LABELS, 2, 1, None, 50, seed=4)
    for i in (3, 0, 4):
        assert all(a.equal(b) for a, b in zip(sampler[i], again[i], strict=True))
    other = EpisodeSampler(LABELS, 2, 1, None, 5, seed=5)
    assert any(not a.support.equal(b.support) for a, b in zip(sampler, other, strict=True))
    with pytest.raises(IndexError, match=r"0 \.\. 4"):
        sampler[5]


def test_all_other_examples_are_queries():
    for episode in EpisodeSampler(LABELS, 3, 1, None, 10):
        counts = torch.tensor([int((label == LABELS).sum()) for label in episode.classes])
        assert episode.query_labels.bincount().equal(counts - 1)


def test_episodes_within_one_alphabet():
    labels = torch.arange(9).repeat_interleave(2)
    groups = torch.tensor([0, 1, 0, 1, 0, 1, 0, 2, 2])
    seen = set()
    for episode in EpisodeSampler(labels, 3, 1, 1, 60, groups=groups):
        alphabets = set(groups[episode.classes].tolist())
        assert len(alphabets) == 1
        seen |= alphabets
    assert seen == {0, 1}, "an alphabet with too few characters is left out"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PairSampler(LABELS, 1), "batch_size must be at least 2"),
        (lambda: PairSampler(torch.arange(4), 4), "at least two examples"),
        (lambda: PairSampler(torch.zeros(4, dtype=torch.int64), 4), "at least two classes"),
        (lambda: PairSampler(LABELS.float(), 4), "labels must be integers"),
        (lambda: PKSampler(torch.zeros(0, dtype=torch.int64), 1, 1), "at least one"),
        (lambda: PKSampler(LABELS, 0, 2), "p and k must be at least 1"),
        (lambda: PKSampler(LABELS, 5, 2), "p must be at most 4, the classes that may share a batch, got 5"),
        (lambda: PKSampler(LABELS, 2, 2, exclusive=torch.zeros(9)), "indexed by label"),
        (lambda: EpisodeSampler(LABELS, 0, 1, 1, 1), "n_way must be at least 1"),
        (
            lambda: EpisodeSampler(LABELS, 3, 2, 1, 1),
            "at least 3 examples each are needed, labels hold only 2",
        ),
        (lambda: EpisodeSampler(LABELS, 3, 1, 1, 1, groups=torch.arange(10)), "largest group holds only 1"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
