"""A denoiser that looks twice: what the second look is told, and what comes out."""

import pytest
import torch

from sfumato.diffusion.sr3 import made_small_again
from sfumato.diffusion.two_looks import TwoLooks


class Refiner:
    """An SR3 model that says one thing, and remembers what it was shown."""

    def __init__(self, answer):
        self.answer, self.saw = answer, None

    def given(self, condition):
        def denoiser(x_t, sigma):
            self.saw = (condition, x_t, sigma)
            return self.answer

        return denoiser


def images(seed, *size):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(16, 24), (5, 7), (1, 1)])
def test_the_second_look_is_told_the_small_picture_of_the_first(scale, size):
    x_t, first, second = (images(seed, *size) for seed in range(3))
    refiner = Refiner(second)
    D = TwoLooks(lambda x, sigma: first, refiner, scale=scale, lack=1e3)
    torch.testing.assert_close(D(x_t, 0.3), (first + 2 * second) / 3)
    condition, seen, sigma = refiner.saw
    assert torch.equal(condition, made_small_again(first, scale))
    assert seen is x_t
    assert sigma == 0.3


def test_two_oracles_are_an_oracle():
    x_0 = images(0, 8, 8)
    D = TwoLooks(lambda x, sigma: x_0, Refiner(x_0), scale=4, lack=0.1)
    assert torch.equal(D(x_0 + images(1, 8, 8), 1.0), x_0)


def test_errors_that_are_not_alike_lose_power():
    x_0, errors = images(0, 64, 64), [images(seed, 64, 64) for seed in (1, 2)]
    D = TwoLooks(lambda x, sigma: x_0 + errors[0], Refiner(x_0 + errors[1]), scale=4, lack=1e3)
    assert float((D(x_0, 0.1) - x_0).square().mean()) == pytest.approx(5 / 9, rel=0.05)


def test_where_more_is_lacking_than_the_second_look_knows_the_first_one_counts():
    D = TwoLooks(lambda x, sigma: x, Refiner(0), scale=4, lack=0.1)
    lacking = torch.zeros(1, 3, 32, 64)
    lacking[..., 32:] = 0.1 * 3**0.5
    share = D.share(lacking)
    assert share.shape == (1, 1, 32, 64)
    torch.testing.assert_close(share[..., :28], torch.full((1, 1, 32, 28), 2 / 3))
    torch.testing.assert_close(share[..., 36:], torch.full((1, 1, 32, 28), 1 / 3))
    assert bool((share.diff(dim=3) <= 1e-6).all())
    assert float(D.share(10 * lacking)[..., 36:].max()) < 1e-3


def test_gradients_flow_through_both_looks():
    class Doubler:
        def given(self, condition):
            return lambda x_t, sigma: condition + x_t

    x_t = images(0, 8, 8).requires_grad_()
    TwoLooks(lambda x, sigma: 3 * x, Doubler(), scale=4, lack=1e3)(x_t, 0.1).sum().backward()
    # ⅓ 3 + ⅔ (3 + 1): what is made small and large again keeps its sum, but where it is clipped.
    assert float(x_t.grad.mean()) > 2.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_answer_has_the_dtype_of_the_image(dtype):
    D = TwoLooks(lambda x, sigma: x, Refiner(images(0, 8, 8)), scale=4, lack=0.1)
    assert D(images(1, 8, 8).to(dtype), 0.1).dtype == dtype
