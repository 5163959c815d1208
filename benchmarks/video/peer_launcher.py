"""Run a script of a peer's checkout, unmodified, on the CPU under a Python that is newer than it.

    PEERS_PYTHON peer_launcher.py COST.json SCRIPT [ARGUMENTS ...]
    PEERS_PYTHON peer_launcher.py COST.json CHECKOUT_OF_E-NERV/ CHECKPOINT FRAMES_DIR

Runs in the peers' own environment, in a scratch folder; it imports nothing of framefold. What the scripts
expect of 2021's PyTorch, of a GPU and of packages that only their other modes use is put in its place before they
start. COST.json tells at the end what the process took. The second form draws E-NeRV's frames, which its own program
cannot write; it begins from the checkpoint that it left.
"""

from __future__ import annotations

import json
import resource
import runpy
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

HEIGHT, WIDTH = 180, 320


class _Evaluations:
    """CPU seconds between a network's `eval()` and the next `train()`: what the peer spends on looking at itself."""

    def __init__(self) -> None:
        self.seconds, self.since = 0.0, None
        train = nn.Module.train

        def switched(module: nn.Module, mode: bool = True) -> nn.Module:
            self.switch(evaluating=not mode)
            return train(module, mode)

        nn.Module.train = switched

    def switch(self, *, evaluating: bool) -> None:
        now = time.process_time()
        if self.since is not None:
            self.seconds += now - self.since
        self.since = now if evaluating else None


def main() -> None:
    """Prepare, run, tell the cost."""
    cost, script, *arguments = sys.argv[1:]
    _without_gpu()
    _without_packages()
    evaluations = _Evaluations()
    sys.argv = [script, *arguments]
    checkout = Path(script) if Path(script).is_dir() else Path(script).parent
    sys.path.insert(0, str(checkout))
    if checkout == Path(script):
        _draw_enerv(Path(arguments[0]), Path(arguments[1]))
    else:
        _small_pictures(checkout)
        runpy.run_path(script, run_name="__main__")
    evaluations.switch(evaluating=False)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    record = {
        "cpu_s": sum(each.ru_utime + each.ru_stime for each in usage),
        "evaluation_cpu_s": evaluations.seconds,
        "peak_mem_mb": usage[0].ru_maxrss / 1024,
    }
    Path(cost).write_text(json.dumps(record))


def _without_gpu() -> None:
    """What is sent to a GPU stays where it is."""
    for kind in (torch.Tensor, nn.Module):
        kind.cuda = lambda self, *_args, **_options: self
    to = torch.Tensor.to
    torch.Tensor.to = lambda self, *args, **options: self if _is_gpu(args) else to(self, *args, **options)
    torch.cuda.synchronize = lambda *_args: None
    torch.cuda.set_device = lambda *_args: None
    # torchvision's Python half declares shapes for two operators that only its native half defines.
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _without_gpu.library = library  # lives as long as the process


def _is_gpu(where: tuple[Any, ...]) -> bool:
    return len(where) == 1 and isinstance(where[0], torch.device) and where[0].type == "cuda"


def _without_packages() -> None:
    """Stand-ins for what is imported and never used here, and names that NumPy 2 no longer has."""
    np.asfarray = lambda values: np.asarray(values, float)
    for name, members in (
        ("decord", {"bridge": types.SimpleNamespace(set_bridge=lambda _name: None)}),
        ("pytorchvideo.data.encoded_video", {"EncodedVideo": None}),
        ("tkinter.messagebox", {"NO": "no"}),
        ("yaspin", {"yaspin": None}),
    ):
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            sys.modules[".".join(parts[:depth])] = types.ModuleType(parts[depth - 1])
        for member, value in members.items():
            setattr(sys.modules[name], member, value)
    import torchvision.io  # noqa: PLC0415  # only after its operators are declared

    torchvision.io.read_image = lambda path: torch.from_numpy(np.array(Image.open(path).convert("RGB"))).movedim(2, 0)


def _small_pictures(checkout: Path) -> None:
    """E-NeRV's data set resizes all pictures to 1280x720, a size written into its class."""
    if not (checkout / "datasets" / "dataset.py").exists():
        return
    from datasets import dataset  # noqa: PLC0415  # the checkout's

    begin = dataset.CustomDataSet.__init__

    def begin_small(self: Any, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        self.height, self.width = HEIGHT, WIDTH

    dataset.CustomDataSet.__init__ = begin_small


def _draw_enerv(checkpoint: Path, folder: Path) -> None:
    """Write pred_0.png ... of a fit's 16 frames, rounded to 8 bits."""
    from model import model_dict  # noqa: PLC0415  # the checkout's

    stored = torch.load(checkpoint, map_location="cpu")
    model = model_dict[stored["config"]["model"]["model_name"]](cfg=stored["config"]["model"])
    model.load_state_dict(stored["model"])
    frames = len(list(Path(stored["config"]["dataset_path"]).iterdir()))
    folder.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        for i in range(frames):
            picture = model.eval()({"img_id": torch.tensor([i / (frames - 1)])})[-1][0]
            pixels = picture.mul(255).round().clamp(0, 255).byte().movedim(0, 2).numpy()
            Image.fromarray(pixels).save(folder / f"pred_{i}.png")


if __name__ == "__main__":
    main()
