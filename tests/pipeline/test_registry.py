import pytest

from framefold.pipeline import plugin_list, registry
from framefold.pipeline.registry import PluginError
from framefold.pipeline.testing import TOYS, Double

MODULE = '''
from framefold.pipeline.stage import Options, Stage

class Config(Options):
    """Options."""
    width: int = 8

class Thumbs(Stage):
    """Makes small pictures.

    Of big ones.
    """
    Config = Config
    accepts = int | str
    emits = {"out": int, "small": int | str}

class Thumb:
    """A codec of thumbs."""
    Config = Config
    accepts = bytes

class NoConfig:
    accepts = int

value = 3
'''


def install(folder, name, stages="", codecs="", **modules):
    """A tiny installed distribution."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[framefold.stages]\n{stages}\n[framefold.codecs]\n{codecs}\n")
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_an_installed_distribution_adds_stages_and_codecs(site):
    install(site, "thumb-plugin", "thumbs = thumbmod_a:Thumbs", "thumb = thumbmod_a:Thumb", thumbmod_a=MODULE)
    assert registry.stages()["thumbs"].distribution == "thumb-plugin"
    assert registry.load_stage("thumbs").__name__ == "Thumbs"
    assert registry.load_codec("thumb").__name__ == "Thumb"
    assert "thumb" not in registry.stages()


def test_nothing_is_imported_before_it_is_asked_for(site):
    install(site, "bomb", "bomb = bombmod:Bomb", bombmod="raise SystemExit('imported')")
    assert registry.stages()["bomb"].value == "bombmod:Bomb"
    with pytest.raises(PluginError, match="SystemExit: imported"):
        registry.load_stage("bomb")


@pytest.mark.parametrize(
    ("value", "text", "cause"),
    [
        (
            "brokenmod_a:X",
            "import surely_not_installed",
            "ModuleNotFoundError: No module named 'surely_not_installed'",
        ),
        ("brokenmod_b:X", "def f(:", "SyntaxError"),
        ("brokenmod_c:X", "", "AttributeError"),
        ("brokenmod_d:X", "X = 3", "that is not a class"),
        ("brokenmod_e:X", "class X: pass", "is not a framefold.pipeline.stage.Stage"),
        ("brokenmod_f:X", "1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_broken_plugin_is_named_and_breaks_nothing_else(site, value, text, cause):
    install(site, "broken-plugin", f"broken = {value}", **{value.partition(":")[0]: text})
    install(site, "thumb-plugin", "thumbs = thumbmod_b:Thumbs", thumbmod_b=MODULE)
    with pytest.raises(PluginError) as caught:
        registry.load_stage("broken")
    assert f"stage 'broken' from broken-plugin ({value}) cannot be loaded" in str(caught.value)
    assert cause in str(caught.value)
    assert registry.load_stage("thumbs").__name__ == "Thumbs"
    assert "thumbs" in registry.loadable_stages()
    assert "broken" not in registry.loadable_stages()


def test_two_distributions_with_one_name_are_both_named(site):
    install(site, "one-plugin", "same = thumbmod_c:Thumbs", thumbmod_c=MODULE)
    install(site, "two-plugin", "same = thumbmod_c:Thumbs\nother = thumbmod_c:Thumbs")
    with pytest.raises(PluginError, match="'same' is registered by one-plugin and two-plugin; uninstall all but one"):
        registry.load_stage("same")
    assert registry.load_stage("other").__name__ == "Thumbs"


def test_unknown_names_list_the_known_ones(site):
    install(site, "thumb-plugin", "thumbs = thumbmod_d:Thumbs", "thumb = thumbmod_d:Thumb", thumbmod_d=MODULE)
    with pytest.raises(PluginError, match=r"unknown stage 'thums', did you mean 'thumbs'\? known: .*reinstall"):
        registry.load_stage("thums")
    with pytest.raises(PluginError, match=r"unknown codec 'thums', did you mean 'thumb'\? known: .*reinstall"):
        registry.load_codec("thums")


def test_classes_can_be_added_without_a_distribution():
    assert registry.load_stage("double", TOYS) is Double
    assert registry.loadable_stages(TOYS)["double"] is Double
    with pytest.raises(PluginError, match="did you mean 'double'"):
        registry.load_stage("doubel", TOYS)


def test_listings_describe_plugins_and_show_broken_ones_as_such(site):
    install(
        site,
        "thumb-plugin",
        "thumbs = thumbmod_e:Thumbs\nthumbroken = thumbmod_e:Missing",
        "thumb = thumbmod_e:Thumb\nthumbvalue = thumbmod_e:value\nthumbnone = thumbmod_e:NoConfig",
        thumbmod_e=MODULE,
    )
    stages = {row.name: row for row in plugin_list.stages()}
    codecs = {row.name: row for row in plugin_list.codecs()}
    thumbs = stages["thumbs"].as_dict()
    assert thumbs["options"]["properties"]["width"]["default"] == 8
    assert {key: thumbs[key] for key in thumbs if key != "options"} == {
        "name": "thumbs",
        "distribution": "thumb-plugin",
        "summary": "Makes small pictures.",
        "accepts": ("int", "str"),
        "emits": {"out": ("int",), "small": ("int", "str")},
    }
    assert (stages["thumbs"].takes, stages["thumbs"].gives) == ("int or str", "int, small: int or str")
    assert "Missing" in stages["thumbroken"].as_dict()["error"]
    assert (codecs["thumb"].accepts, codecs["thumb"].emits) == (("bytes",), ("FittedNetwork",))
    assert codecs["thumb"].summary == "A codec of thumbs."
    assert "that is not a class" in codecs["thumbvalue"].error
    assert "is not a codec" in codecs["thumbnone"].error
