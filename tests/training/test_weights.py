import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvos.errors import InputError
from jaxvos.training import load_variables, match_variables, save_variables

VARIABLES = {
    "params": {"encoder": {"kernel": jnp.linspace(0.0, 1.0, 12).reshape(3, 4).T, "scale": jnp.float32(2.0)}},
    "batch_stats": {"norm": {"var": jnp.array([1.0, 1e6]), "count": jnp.array([3], jnp.int32)}},
}


def test_round_trip(tmp_path):
    path = tmp_path / "deep" / "w.safetensors"
    save_variables(path, VARIABLES, {"config": {"lr": 0.1}, "commit": "unknown"})
    variables, metadata = load_variables(path)
    jax.tree.map(np.testing.assert_array_equal, variables, VARIABLES)
    assert jax.tree.map(lambda x: x.dtype, variables) == jax.tree.map(lambda x: x.dtype, VARIABLES)
    assert metadata == {"config": {"lr": 0.1}, "commit": "unknown"}
    assert [file.name for file in path.parent.iterdir()] == ["w.safetensors"]


def test_half_precision_on_disk_comes_back_as_float32(tmp_path):
    save_variables(tmp_path / "w.safetensors", VARIABLES, dtype="float16")
    variables, _ = load_variables(tmp_path / "w.safetensors")
    kernel = variables["params"]["encoder"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_allclose(kernel, VARIABLES["params"]["encoder"]["kernel"], atol=1e-3)
    assert np.any(kernel != VARIABLES["params"]["encoder"]["kernel"])
    np.testing.assert_array_equal(variables["batch_stats"]["norm"]["var"], [1.0, 1e6])  # beyond float16


def test_names_on_disk(tmp_path):
    from safetensors.numpy import load_file

    save_variables(tmp_path / "w.safetensors", VARIABLES)
    assert set(load_file(tmp_path / "w.safetensors")) == {
        "params/encoder/kernel", "params/encoder/scale", "batch_stats/norm/var", "batch_stats/norm/count"
    }  # fmt: skip


def test_a_failed_save_leaves_the_old_file(tmp_path):
    save_variables(tmp_path / "w.safetensors", VARIABLES)
    before = (tmp_path / "w.safetensors").read_bytes()
    with pytest.raises(TypeError):
        save_variables(tmp_path / "w.safetensors", VARIABLES, {"not json": object()})
    assert (tmp_path / "w.safetensors").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def _other(**encoder):
    return {**VARIABLES, "params": {"encoder": {**VARIABLES["params"]["encoder"], **encoder}}}


def test_matching():
    match_variables(VARIABLES, jax.eval_shape(lambda: VARIABLES))
    with pytest.raises(InputError, match=r"lack params/encoder/bias \(4,\)"):
        match_variables(VARIABLES, _other(bias=np.zeros(4)))
    with pytest.raises(InputError, match="hold params/encoder/bias, which the model lacks"):
        match_variables(_other(bias=np.zeros(4)), VARIABLES)
    with pytest.raises(InputError, match=r"params/encoder/kernel has shape \(4, 3\) in the weights and \(5,\)"):
        match_variables(VARIABLES, _other(kernel=np.zeros(5)))


def test_bad_files_are_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.safetensors does not exist"):
        load_variables(tmp_path / "nowhere.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not this")
    with pytest.raises(InputError, match="bad.safetensors is not a safetensors file"):
        load_variables(tmp_path / "bad.safetensors")
