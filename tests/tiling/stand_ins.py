"""Cheap stand-ins for a network, and mask-shift restoration once more, tile by tile."""

import torch
import torch.nn.functional as F

from sfumato.diffusion import Chain, NoiseField, karras
from sfumato.guidance import DDNM, DDNMPlus, Guide, Measurement, Paste
from sfumato.samplers import DDIM, sample, walk
from sfumato.tiling import Engine, Level, Restorer, TilePlan


def shrink(x, sigma):
    """Average over 3 x 3 pixels, and go towards grey: borders of a tile count."""
    smooth = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.tanh(smooth / (1 + sigma))


def pointwise(x, sigma):
    return torch.tanh(x / (1 + sigma))


def engine(
    *, denoiser=shrink, sampler=None, method=None, travel=(2, 2), n_steps=3, batch=1, **settings
):
    sampler = sampler or DDIM(0.85)
    moves = walk(sampler, karras(n_steps, 5.0), travel_length=travel[0], travel_repeats=travel[1])
    method = method or (DDNM)
    return Engine(Restorer(denoiser, sampler, moves, method, batch=batch, **settings))


def level_of(A, *, seed=0, sigma_y=0.0, **settings):
    """Return a level with a measurement of a random image."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand((1, *A.in_shape), generator=g) * 2 - 1
    y = A(x)
    y = y + sigma_y * torch.randn(y.shape, generator=g)
    field = NoiseField(seed, sample=1, level=2)
    return Level(A.in_shape, field, Measurement(A, y, sigma_y), **settings)


def plan_of(A, tile=16, overlap=4, order="raster", known=None):
    _, h, w = A.in_shape
    stride = A.locality.stride
    margin = overlap // 2 // stride * stride
    return TilePlan(h, w, tile, overlap, stride, order, known, margin)


def result(restoration):
    """Run a restoration to its end; return the image and all progress."""
    progress = []
    while True:
        try:
            progress.append(next(restoration))
        except StopIteration as stop:
            return stop.value, progress


def plus(m):
    return DDNMPlus(m)


def one_by_one(engine, level, plan):
    """Mask-shift restoration in the order of the tiles, with nothing from the engine."""
    engine = engine.restorer
    canvas = torch.zeros((1, *level.shape))
    done = torch.zeros((1, *level.shape[1:]), dtype=torch.bool)
    for t in plan.tiles:
        w = t.window

        def noise(draw, w=w):
            shape = (level.shape[0], w.height, w.width)
            return level.field(draw=draw, top=w.top, left=w.left, shape=shape)[None]

        links = []
        if level.guide is not None:
            coarse, r = level.guide
            rows = slice(w.top // r, (w.top + w.height) // r)
            cols = slice(w.left // r, (w.left + w.width) // r)
            links.append(Guide(coarse[..., rows, cols], r, engine.guide_until))
        if level.measurement is not None:
            links.append(engine.method(level.measurement.crop(w)))
        guidance, x_T = Chain(links), engine.moves[0].sigma * noise(0)
        if level.start is not None:
            x_T = x_T + w.of(level.start)
        bound = t.frozen()
        assert bool((w.of(done) | ~bound).all()), "it is bound to what is not there yet"
        if bool(bound.any()):
            guidance = Paste(guidance, w.of(canvas).clone(), bound)
        *_, (_, x) = sample(
            engine.denoiser, engine.sampler, [guidance], engine.moves, x_T=x_T, noise=noise
        )
        assert torch.equal(x[:, :, bound[0]], w.of(canvas)[:, :, bound[0]])
        for part in t.free:
            part.of(canvas).copy_(part.within(w).of(x))
            part.of(done).fill_(True)
    return canvas
