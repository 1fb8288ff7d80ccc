"""Randomized smoothing of the MDEQ in PyTorch, written plainly: solves, chains, starts, counts.

It is what a certification without this package would run: the same model, weights and settings, a batch of lanes
after the other.
"""

from __future__ import annotations

import functools

import numpy as np
import pytorch_mdeq
import torch

from deqsmooth.statistics import bounds

_HISTORY, _RIDGE = 6, 1e-4


class Sampling:
    """Certifies images with the shipped model and its start.

    Attributes:
      lanes: samples that are evaluated at a time.
    """

    def __init__(self, classifier, device, lanes, compiled):
        """Takes a classifier of this package, a device, the lanes, and whether to compile its parts."""
        size, variables = classifier.size, classifier.variables
        params, stats = variables["params"], variables["batch_stats"]
        inject, readout, network, cell, inject_stats, readout_stats = pytorch_mdeq.tensors(
            (
                params["inject"],
                params["readout"],
                variables["start"]["network"],
                classifier.model.bind(variables),
                stats["inject"],
                stats["readout"],
            ),
            device,
        )
        mean, std = (torch.tensor(x, device=device)[:, None, None] for x in (size.mean, size.std))
        height, width, _ = size.image_shape
        self._shapes = [
            (height >> (size.num_strided + i), width >> (size.num_strided + i), channels)
            for i, channels in enumerate(size.channels)
        ]
        self._device, self._num_classes, self.lanes = device, size.num_classes, lanes
        parts = {
            "inject": lambda x: pytorch_mdeq.inject(inject, inject_stats, (x - mean) / std, size.num_strided),
            "cell": lambda z, u: pytorch_mdeq.cell(cell, z, u),
            "readout": lambda z: pytorch_mdeq.readout(readout, readout_stats, z),
            "start": lambda u: pytorch_mdeq.start(network, u, self._shapes),
            "mixed": _mixed,
        }
        for name, part in parts.items():
            setattr(self, f"_{name}", torch.compile(part, dynamic=False) if compiled else part)

    def lower_bound(self, pixels, settings):
        """Returns the lower bound on the probability of the selected class of an image [H, W, C] in [0, 1]."""
        image = torch.from_numpy(np.array(pixels, np.float32)).to(self._device).permute(2, 0, 1)[None]
        noisy = functools.partial(self._noisy, image, settings.sigma)
        sample = self._chains if settings.sampler == "serial" else self._independent
        chosen = self._counts(sample(noisy, settings.num_selection, settings)[0]).argmax()
        votes, images = sample(noisy, settings.num_estimation, settings)
        audit = None
        if settings.sampler == "serial":
            of_class = torch.nonzero(votes == chosen)[:, 0]
            drawn = of_class[torch.randperm(len(of_class), device=self._device)][: settings.num_audit]
            again = self._again(images, drawn, settings.reference_budget)
            audit = settings.audit(len(drawn), int((again != chosen).sum()))
        count = int(self._counts(votes)[chosen])
        return bounds.lower_bound(count, len(votes), settings.alpha_count, audit=audit)

    def logits(self, images, budget, *, is_learned):
        """Returns the logits of noisy images [lanes, C, H, W]."""
        u = self._inject(images.to(self._device).contiguous(memory_format=torch.channels_last))
        return self._readout(self._solve(self._start(u) if is_learned else self._zeros(), u, budget))

    def _independent(self, noisy, num, settings):
        is_learned = settings.start == "learned"
        blocks = range(-(-num // self.lanes))
        logits = [self.logits(noisy(), settings.budget, is_learned=is_learned) for _ in blocks]
        return torch.cat(logits).argmax(-1)[:num], None

    def _chains(self, noisy, num, settings):
        """Returns the votes of chains [num] and their noisy images."""
        z = self._solve(self._zeros(), self._inject(noisy()), settings.warmup_budget)
        votes, images = [], []
        for _ in range(-(-num // self.lanes)):
            images.append(noisy())
            z = self._solve(z, self._inject(images[-1]), settings.budget)
            votes.append(self._readout(z).argmax(-1))
        return torch.cat(votes)[:num], torch.cat(images)[:num]

    def _again(self, images, drawn, budget):
        """Returns the classes of drawn images by a long solve from zero."""
        votes = []
        for block in drawn.split(self.lanes):
            # A compiled part has one shape.
            padded = torch.cat([block, block.new_zeros(self.lanes - len(block))])
            votes.append(self.logits(images[padded], budget, is_learned=False).argmax(-1)[: len(block)])
        return torch.cat(votes)

    def _solve(self, z, u, budget):
        """Returns the state after some evaluations with Anderson mixing of six."""
        if budget == 1:
            return self._cell(z, u)
        flat, size = _flat(z), min(_HISTORY, budget)
        values, residuals = (torch.zeros(len(flat), size, flat.shape[1], device=flat.device) for _ in range(2))
        for step in range(budget):
            fz = _flat(self._cell(self._branches(flat), u))
            values[:, step % size] = fz
            residuals[:, step % size] = fz - flat
            used = torch.arange(size, device=flat.device) <= step
            flat = self._mixed(values, residuals, used)
        return self._branches(flat)

    def _zeros(self):
        total = sum(height * width * channels for height, width, channels in self._shapes)
        return self._branches(torch.zeros(self.lanes, total, device=self._device))

    def _counts(self, votes):
        return np.bincount(votes.cpu().numpy(), minlength=self._num_classes)

    def _noisy(self, image, sigma):
        repeated = image.expand(self.lanes, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        return repeated + sigma * torch.randn_like(repeated)

    def _branches(self, flat):
        parts = flat.split([h * w * c for h, w, c in self._shapes], 1)
        return tuple(x.view(-1, *shape).permute(0, 3, 1, 2) for x, shape in zip(parts, self._shapes, strict=True))


def _flat(z):
    """Returns the branches of a state as one row a lane, without a change of the order in memory."""
    return torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1) for x in z], 1)


def _mixed(values, residuals, used):
    """Returns the combination of the used values [lanes, size, entries] that minimises that of the residuals."""
    gram = residuals @ residuals.transpose(1, 2) + torch.diag(torch.where(used, _RIDGE, 1.0))
    weights = torch.linalg.solve(gram, used.to(gram.dtype)[:, None].expand(len(gram), -1, 1))
    weights = weights / weights.sum(1, keepdim=True)
    return (weights.transpose(1, 2) @ values)[:, 0]
