"""Exported models: the same answers from a file, without jaxvos, for every system; and what is refused."""

import dataclasses
import json
import subprocess
import sys
import textwrap
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvos.inference._exported
from jaxvos.errors import InputError
from jaxvos.inference import export_model, load_exported, save_exported
from jaxvos.inference._fold import jitted_predict, jitted_start
from jaxvos.models import load_model
from jaxvos.system import Frame, Prediction, Proposals, System

SIZE = (40, 56)
OBJECTS, PROPOSALS, CELLS = 2, 6, 14  # where a system wants any
SYSTEMS = {"transportnet": "tiny_model", "dmm_net": "tiny_dmm", "mask_rcnn": "tiny_proposer", "pwc_net": "tiny_pwc",
           "segflow": "tiny_segflow", "stcn": "tiny_stcn", "xmem": "tiny_xmem", "mask_vos": "tiny_mask_vos"}
FAST = {"pwc_net", "stcn", "dmm_net"}


@pytest.fixture
def tiny(request):
    """Loads the smallest model of a system."""
    return lambda name: load_model(request.getfixturevalue(SYSTEMS[name]))


def _options(model):
    """What a model of this kind is told of shapes."""
    needs = model.system.needs
    return ({"num_objects": OBJECTS} if "masks" in needs else {}) | (
        {"num_proposals": PROPOSALS, "proposal_size": CELLS} if "proposals" in needs else {})


def _masks(*places):
    """One square for each object, or none where there is no place for it."""
    labels = np.zeros(SIZE, int)
    for index, place in enumerate(places):
        if place is not None:
            labels[8:30, place : place + 14] = index + 1
    return jax.nn.one_hot(labels, 1 + len(places))


def _frame(model, index):
    """Frame number `index` of a film of noise that moves, with all that the model wants."""
    rng = np.random.default_rng(7)
    noise = np.repeat(np.repeat(rng.random((10, 20, 3), np.float32), 4, 0), 4, 1)
    images = [jnp.asarray(noise[:, 2 * n : 2 * n + SIZE[1]]) for n in (index, index + 1)]
    lower, upper = 20 * rng.random((PROPOSALS, 2)), 25 + 15 * rng.random((PROPOSALS, 2))
    fields = {
        "next_image": images[1],
        "flow": jnp.asarray(rng.normal(0, 3, (*SIZE, 2)), jnp.float32),
        "proposals": Proposals(
            jnp.asarray(np.concatenate([lower, upper], axis=1), jnp.float32),
            jnp.asarray(rng.random((PROPOSALS, CELLS, CELLS)), jnp.float32),
            jnp.asarray(rng.random(PROPOSALS), jnp.float32),
            jnp.arange(PROPOSALS) < PROPOSALS - 1,
        ),
    }
    return Frame(images[0], **{name: value for name, value in fields.items() if name in model.system.needs})


def _plain(named_tuple):
    """Dicts of the fields that are there."""
    return {name: value._asdict() if isinstance(value, Proposals) else value
            for name, value in named_tuple._asdict().items() if value is not None}


def _equal(answers, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5), answers, expected)


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in SYSTEMS
])
def test_a_file_answers_as_the_model_does(tiny, tmp_path, name):
    model = tiny(name)
    save_exported(tmp_path / "model.zip", export_model(model, size=SIZE, platforms=("cpu", "cuda", "tpu"),
                                                       **_options(model)))
    exported = load_exported(tmp_path / "model.zip")
    told = (_masks(4, 30),) if "masks" in model.system.needs else ()
    start, predict = jitted_start(model.system), jitted_predict(model.system)
    memory = start(model.variables, _frame(model, 0), *told)
    carried = exported.start(_plain(_frame(model, 0)), *told)
    answers = []
    for index in range(3):
        memory, prediction = predict(model.variables, memory, _frame(model, index))
        carried, answer = exported.predict(carried, _plain(_frame(model, index)))
        _equal(answer, _plain(prediction))
        answers.append(answer)
    _equal(carried, tuple(jax.tree.leaves(memory)))
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(*map(jax.tree.leaves, answers[:2]), strict=True))
    assert exported.about["system"] == name and exported.about["platforms"] == ["cpu", "cuda", "tpu"]


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in ("stcn", "xmem", "mask_vos")
])
def test_objects_come_and_go(tiny, name):
    """On the second frame the first object is no longer followed, and another is marked in its place."""
    model = tiny(name)
    exported = export_model(model, size=SIZE, num_objects=OBJECTS)
    frames = [_plain(_frame(model, index)) for index in range(3)]
    again = {"masks": _masks(20, None), "alive": jnp.array([True, False, True])}
    memory = exported.start(frames[0], _masks(4, 30))
    expected = jitted_start(model.system)(model.variables, Frame(**frames[0]), _masks(4, 30))
    for frame in (frames[0], frames[1] | again, frames[2]):
        before = memory
        memory, answer = exported.predict(memory, frame)
        expected, prediction = jitted_predict(model.system)(model.variables, expected, Frame(**frame))
        _equal(answer, _plain(prediction))
        if "masks" in frame:
            np.testing.assert_array_equal(answer["masks"][20, 20:34].argmax(-1), 1)
            assert np.abs(exported.predict(before, frames[1])[1]["masks"] - answer["masks"]).max() > 0.1


def test_it_runs_where_jaxvos_is_not(tiny, tmp_path):
    """By the lines of the documentation, in a process that has only jax."""
    model, images, masks = tiny("stcn"), [], _masks(4, 30)
    exported = export_model(model, size=SIZE, num_objects=OBJECTS)
    save_exported(tmp_path / "stcn.zip", exported)
    memory = exported.start(_plain(_frame(model, 0)), masks)
    for index in range(3):
        frame = _plain(_frame(model, index))
        images.append(frame["image"])
        memory, answer = exported.predict(memory, frame)
    np.savez(tmp_path / "input.npz", images=images, masks=masks)
    text = jaxvos.inference._exported.__doc__
    lines = textwrap.dedent(text[text.index("    import io") : text.index("Nothing else is passed")])
    given = "import numpy as np\nwith np.load('input.npz') as given: images, masks = given['images'], given['masks']\n"
    check = "import sys\nassert not {'jaxvos', 'flax'} & sys.modules.keys()\nnp.save('out.npy', answer['masks'])\n"
    subprocess.run([sys.executable, "-W", "error", "-c", given + lines + check], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), answer["masks"], atol=1e-5)


def test_the_story_of_a_file(tiny, tmp_path):
    model = tiny("dmm_net")
    exported = export_model(model, size=SIZE, **_options(model))
    save_exported(tmp_path / "model.zip", exported)
    with zipfile.ZipFile(tmp_path / "model.zip") as file:
        assert sorted(file.namelist()) == ["about.json", "predict.exported", "start.exported", "variables.npz"]
        about = json.loads(file.read("about.json"))
        assert str(jaxvos.__path__[0]).encode() not in file.read("predict.exported")
    assert about["format"] == 1 and about["name"] == "tiny-dmm" and about["licence"] == "CC0-1.0"
    assert about["config"]["match_width"] == 8 and about["versions"]["jax"] == jax.__version__
    assert about["size"] == [40, 56] and about["objects"] == 2
    assert about["calling_convention_version"] >= jax.export.minimum_supported_calling_convention_version
    assert len(about["variables"]) == len(jax.tree.leaves(model.variables)) == len(exported.variables)
    assert about["memory"][-1] == {"name": "age", "shape": [], "dtype": "int32"}
    predict = about["functions"]["predict"]
    assert list(predict["inputs"]) == ["variables", "memory", "frame"]
    assert predict["inputs"]["frame"]["proposals"]["masks"] == {"shape": [6, 14, 14], "dtype": "float32"}
    assert predict["outputs"]["answer"] == {"masks": {"shape": [40, 56, 3], "dtype": "float32"}}
    assert about["functions"]["start"]["inputs"]["masks"] == {"shape": [40, 56, 3], "dtype": "float32"}


def _frame_of(model, **options):
    return export_model(model, **options).about["functions"]["predict"]["inputs"]["frame"]


def test_what_is_left_out_has_defaults(tiny):
    matcher, follower = tiny("dmm_net"), tiny("stcn")
    frame = _frame_of(matcher)
    assert frame["image"]["shape"] == [64, 64, 3]  # of the net's input
    assert frame["proposals"]["masks"]["shape"] == [50, 28, 28]
    exported = export_model(follower)
    assert exported.about["size"] == [480, 854] and exported.about["objects"] == 1
    assert exported.about["platforms"] == ["cpu"]


def test_an_adapted_model_is_exported_as_it_is(tiny):
    model = tiny("segflow")
    system, variables = model.system.adaptation.prepare(model.variables, 3)
    answers = [export_model(each, size=SIZE).about["functions"]["predict"]["outputs"]["answer"]
               for each in (model, model._replace(system=system, variables=variables))]
    assert [each["masks"]["shape"] for each in answers] == [[40, 56, 2], [40, 56, 3]]


def test_another_platform_than_was_named(tiny):
    model = tiny("pwc_net")
    exported = export_model(model, size=SIZE, platforms=["tpu"])
    with pytest.raises(ValueError, match="tpu"):
        exported.predict((), _plain(_frame(model, 0)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [("stcn", {"size": (15, 64)}, "frames of 15x64: give at least 16 rows and 16 columns"),
     ("stcn", {"platforms": ("cpu", "gpu")}, "there is no platform 'gpu': give some of cpu, cuda, rocm, tpu"),
     ("stcn", {"platforms": ()}, "no platform is named: give some of cpu"),
     ("stcn", {"num_objects": 0}, "a number of objects of 0: give one from 1 to 254"),
     ("stcn", {"num_objects": 255}, "a number of objects of 255"),
     ("dmm_net", {"num_proposals": 0}, "a number of proposals of 0: give one from 1 on"),
     ("dmm_net", {"proposal_size": -1}, "a size of proposals of -1"),
     ("stcn", {"proposal_size": 28}, "tiny-stcn wants no proposals and has no use for a size of proposals"),
     ("pwc_net", {"num_objects": 2}, "tiny-pwc wants no masks and has no use for a number of objects: leave it out")],
)  # fmt: skip
def test_wrong_arguments(tiny, name, options, message):
    with pytest.raises(InputError, match=message):
        export_model(tiny(name), **options)


def test_a_system_that_calls_python_back(tiny):
    def predict(variables, memory, frame):
        masks = jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((*SIZE, 2), np.float32), frame.image[..., :2])
        return memory, Prediction(masks)

    model = tiny("pwc_net")._replace(system=System(None, None, predict), name="mine")  # type: ignore[arg-type]
    for platforms in (("cpu",), ("cpu", "tpu")):
        with pytest.raises(InputError, match="mine cannot be exported, as its functions call Python back") as error:
            export_model(model, size=SIZE, platforms=platforms)
        assert "\n" not in str(error.value)


def test_without_flatbuffers(tiny, monkeypatch):
    model = tiny("pwc_net")
    exported = export_model(model, size=SIZE)
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    message = r"need flatbuffers: pip install 'jaxvos\[export\]'"
    with pytest.raises(InputError, match=message):
        export_model(model, size=SIZE)
    with pytest.raises(InputError, match=message):
        exported.predict((), _plain(_frame(model, 0)))


def test_frames_that_do_not_fit(tiny):
    model = tiny("stcn")
    exported, frame = export_model(model, size=SIZE), _plain(_frame(model, 0))
    for call, message in (
        (lambda: exported.start(frame), "start wants frame, masks, and is given frame$"),
        (lambda: exported.start(frame, _masks(4, 30)), r"start: masks is float32 \(40, 56, 3\) and must be .*56, 2\)"),
        (lambda: exported.start({}, _masks(4)), "start: frame wants image, and is given nothing"),
        (lambda: exported.start({"image": np.zeros((*SIZE, 3), np.uint8)}, _masks(4)), r"frame: image is uint8 \(40"),
        (lambda: exported.predict((), frame), "predict: memory is 0 arrays and must be"),
        (lambda: exported.start(frame | {"flow": 0.0}, _masks(4)), "wants image, and is given flow, image"),
        (lambda: exported.predict((), frame | {"masks": _masks(4)}), "tell: memory is 0 arrays and must be 11"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_files_that_are_no_exported_models(tiny, tmp_path):
    path = tmp_path / "model.zip"
    exported = export_model(tiny("pwc_net"), size=SIZE)

    def refused(message):
        with pytest.raises(InputError, match=message) as error:
            load_exported(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)

    refused("there is no file")
    path.write_text("hello")
    refused("is no exported model .*: give a file that jaxvos export wrote")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("about.json", "{}")
    refused("is no exported model")
    for change, words in (({"format": 2}, "is of format 2"), ({"calling_convention_version": 1}, "convention 1, and")):
        save_exported(path, dataclasses.replace(exported, about=exported.about | change))
        refused(words)
    with pytest.raises(InputError, match="cannot write"):
        save_exported(path / "within.zip", exported)
