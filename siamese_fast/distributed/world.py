"""The ranks that work together, and the few exchanges that everything else is made of.

Everything runs on `torch.distributed` as the caller started it (gloo or NCCL, `torchrun`); without it, or
with one process, the world is of one rank and nothing is sent. A rank that dies or stalls makes the exchanges
of the others fail within the timeout of the process group.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
Card = tuple[Sequence[int], Mapping[str, Any]]

_SIZES = 4
_TEXT = 1024
_KINDS = {kind.__name__: kind for kind in (ValueError, TypeError, IndexError, KeyError, FileNotFoundError)}


class World:
    """The ranks of a process group; with `alone`, this process by itself, whatever has been started.

    Attributes:
        rank, size: this process's number among the ranks, and how many there are.
        device: where tensors must live to be sent.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, *, alone: bool = False) -> None:
        started = dist.is_available() and dist.is_initialized() and not alone
        if group is not None and not started:
            raise ValueError("group is given but torch.distributed is not initialised")
        self.group = group
        self.size = dist.get_world_size(group) if started else 1
        self.rank = dist.get_rank(group) if started else 0
        if self.rank < 0:
            raise ValueError("group must be one that this process belongs to")
        self._backend = str(dist.get_backend(group)) if started else ""
        self.device = torch.device("cuda" if self._backend == "nccl" else "cpu")

    def check_device(self, name: str, value: Tensor) -> None:
        """Raise ValueError where the group's backend cannot send `value`."""
        carried = {"nccl": "cuda", "gloo": "cpu"}.get(self._backend, value.device.type)
        if self.size > 1 and value.device.type != carried:
            raise ValueError(
                f"{name} is on {value.device}, and the process group's backend {self._backend} sends tensors "
                f"on {carried}"
            )

    def gather(self, value: Tensor) -> Tensor:
        """The value of every rank, `[W, ...]`; of the same shape and dtype on each."""
        if self.size == 1:
            return value[None]
        gathered = value.new_empty((self.size, *value.shape))
        dist.all_gather(list(gathered.unbind(0)), value.contiguous(), group=self.group)
        return gathered

    def swap(self, counts: Tensor) -> Tensor:
        """Element r of `counts` `[W]` goes to rank r: what each rank has for this one, `[W]`."""
        if self.size == 1:
            return counts
        mine, theirs = counts.to(self.device), torch.empty_like(counts, device=self.device)
        dist.all_to_all_single(theirs, mine, group=self.group)
        return theirs.to(counts.device)

    def sum(self, value: Tensor) -> Tensor:
        """The sum over the ranks, of the same bits on each."""
        return self._reduced(value, "SUM")

    def maximum(self, value: Tensor) -> Tensor:
        return self._reduced(value, "MAX")

    def _reduced(self, value: Tensor, operation: str) -> Tensor:
        if self.size == 1:
            return value
        reduced = value.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(reduced, getattr(dist.ReduceOp, operation), group=self.group)
        return reduced

    def broadcast(self, value: Tensor) -> Tensor:
        """Overwrite `value` by that of rank 0."""
        if self.size > 1:
            dist.broadcast(value, src=self._peer(0), group=self.group)
        return value

    def gather_list(self, values: Tensor) -> list[Tensor]:
        """The vectors of all ranks, of any length on each."""
        lengths = self.gather(torch.tensor([len(values)], device=self.device)).flatten().tolist()
        padded = values.new_zeros(max(lengths))
        padded[: len(values)] = values
        return [row[:length] for row, length in zip(self.gather(padded), lengths, strict=True)]

    def gather_json(self, value: Any) -> list[Any]:
        """A JSON value of every rank."""
        data = json.dumps(value).encode()
        gathered = self.gather_list(_bytes(data, len(data)).to(self.device))
        return [json.loads(row.cpu().numpy().tobytes()) for row in gathered]

    def shared(self, action: Callable[[], Any]) -> Any:
        """On every rank what `action` returns on rank 0, a JSON value; or raises there."""
        text = self.attempt(lambda: json.dumps(action()) if self.rank == 0 else "")
        return json.loads(self.gather_json(text)[0])

    def start(self, send: Tensor, to: int, receive: Tensor, source: int) -> list[dist.Work]:
        """Begin to send to one rank and to receive from another; an empty tensor is neither sent nor awaited.

        Wait for what is returned before either tensor is touched.
        """
        operations = []
        if send.numel():
            operations.append(dist.P2POp(dist.isend, send, self._peer(to), self.group))
        if receive.numel():
            operations.append(dist.P2POp(dist.irecv, receive, self._peer(source), self.group))
        works: list[dist.Work] = dist.batch_isend_irecv(operations) if operations else []
        return works

    def agreed(self, action: Callable[[], T], card: Callable[[T], Card]) -> tuple[T, list[list[int]]]:
        """The result of `action`, and every rank's sizes; or the same complaint on every rank.

        `card(result)` gives at most four sizes, which may differ between ranks, and settings, which may not.
        An exception of `action` on one rank is raised there and, as one of the same kind, on all others: so
        bad input is an error everywhere and no rank waits for another that gave up.
        """
        if self.size == 1:
            result = action()
            return result, [list(card(result)[0])]
        failure = None
        sizes: Sequence[int] = ()
        try:
            result = action()
            sizes, settings = card(result)
            text = json.dumps(settings).encode()
        except Exception as error:
            failure, sizes = error, ()
            text = f"{type(error).__name__}\n{error}".encode()
        filler = [0] * (_SIZES - len(sizes))
        head = torch.tensor([failure is not None, len(text), *sizes, *filler], dtype=torch.int64)
        mine = torch.cat([head.view(torch.uint8), _bytes(text[:_TEXT], _TEXT)])
        cards = self.gather(mine.to(self.device)).cpu()
        if failure is not None:
            raise failure
        heads, texts = cards[:, : 8 * (_SIZES + 2)].contiguous().view(torch.int64), cards[:, -_TEXT:]
        _check_success(heads[:, 0].bool(), texts)
        if int(heads[:, 1].max()) > _TEXT:
            _check_same(self.gather_json(settings))
        elif not torch.equal(texts, texts[:1].expand_as(texts)):
            _check_same([json.loads(_text(row)) for row in texts])
        return result, heads[:, 2 : 2 + len(sizes)].tolist()

    def attempt(self, action: Callable[[], T]) -> T:
        """The result of `action`, which raises on every rank what it raised on any."""
        return self.agreed(action, lambda _: ((), {}))[0]

    def _peer(self, rank: int) -> int:
        return rank if self.group is None else dist.get_global_rank(self.group, rank)


def _bytes(data: bytes, length: int) -> Tensor:
    padded = torch.zeros(length, dtype=torch.uint8)
    padded[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else padded[:0]
    return padded


def _check_success(failed: Tensor, texts: Tensor) -> None:
    if failed.any():
        rank = int(failed.to(torch.uint8).argmax())
        kind, message = _text(texts[rank]).split("\n", 1)
        raise _KINDS.get(kind, RuntimeError)(f"rank {rank}: {message}")


def _check_same(settings: list[dict[str, Any]]) -> None:
    for name, value in settings[0].items():
        other = next((r for r, each in enumerate(settings) if each.get(name) != value), None)
        if other is not None:
            raise ValueError(
                f"{name} must be the same on every rank: rank 0 has {value!r}, rank {other} has "
                f"{settings[other].get(name)!r}"
            )


def _text(row: Tensor) -> str:
    return row.numpy().tobytes().rstrip(b"\0").decode(errors="ignore")
