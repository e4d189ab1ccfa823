"""The enlarging transposed convolution, against PyTorch's values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.nets import UpConv


@pytest.mark.data
def test_golden_values(golden_dir):
    golden = np.load(golden_dir / "nets" / "layers.npz")
    x = jnp.moveaxis(jnp.asarray(golden["deconv/x"]), 1, -1)
    kernel = jnp.transpose(jnp.asarray(golden["deconv/weight_in_out_kh_kw"]), (2, 3, 0, 1))
    found = UpConv(4).apply({"params": {"kernel": kernel, "bias": jnp.asarray(golden["deconv/bias"])}}, x)
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), golden["deconv/k4s2p1"], atol=2e-6)


def test_it_is_the_convolution_of_the_spread_input(key):
    x, kernel = jax.random.normal(key, (1, 3, 5, 2)), jax.random.normal(key, (4, 4, 2, 3))
    expected = np.zeros((6, 10, 3))
    for i, j, a, b in np.ndindex(3, 5, 4, 4):
        y, c = 2 * i + a - 1, 2 * j + b - 1
        if 0 <= y < 6 and 0 <= c < 10:
            expected[y, c] += np.asarray(x[0, i, j]) @ np.asarray(kernel[a, b])
    net = UpConv(3, use_bias=False)
    np.testing.assert_allclose(net.apply({"params": {"kernel": kernel}}, x)[0], expected, atol=1e-5)
    assert set(net.init(key, x)["params"]) == {"kernel"} and set(UpConv(3).init(key, x)["params"]) == {"kernel", "bias"}


def test_what_it_starts_from_keeps_the_variance(key):
    x = jax.random.normal(key, (1, 32, 32, 64))
    assert UpConv(64).init_with_output(key, x)[0].std() == pytest.approx(1.0, abs=0.1)
