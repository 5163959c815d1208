"""NeRV, E-NeRV and HNeRV as their authors published them, run from checkouts that the user has.

They carry no licence, so nothing of them is here. What `--peers FOLDER` needs:

    FOLDER/NeRV/     github.com/haochen-rye/NeRV at 6904589     train_nerv.py model_nerv.py utils.py
    FOLDER/E-NeRV/   github.com/kyleleey/E-NeRV at 9f3529a      main.py engine.py model/ datasets/ utils/ cfgs/
    FOLDER/HNeRV/    github.com/haochen-rye/HNeRV at 4872129    train_nerv_all.py model_all.py hnerv_utils.py

and `--peers-python PATH` the Python of an environment with

    pip install torch==2.13.0 numpy pillow pytorch-msssim einops timm tensorboard dahuffman pandas matplotlib tqdm
    pip install imageio pyyaml
    pip install --no-deps torchvision==0.28.0

(torchvision's native half does not load beside a CPU torch; only its Python half is used). The programs run unmodified
through `peer_launcher.py`, in a scratch folder, on one thread with one loader process. Sizes are those that their
papers' networks become for 16 frames of 320x180; all else is as they publish it, 60 epochs long. Pictures are read
back from what they saved, and measured here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from clips import Footage, write_pictures
from PIL import Image
from record import Run

from framefold.codecs.clip import Frames

LAUNCHER = Path(__file__).with_name("peer_launcher.py")
EPOCHS = 60

NERV = (
    "--lower-width 24 --num-blocks 1 --dataset clip16 --frame_gap 1 --embed 1.25_40 --stem_dim_num 128_1 --reduction 2 "
    "--fc_hw_dim 9_16_26 --expansion 1 --single_res --loss Fusion6 --warmup 0.2 --lr_type cosine --strides 5 2 2 "
    "--conv_type conv --norm none --act swish --eval_freq 20 -p 1000 -j 1 --outf out"
)
HNERV = (
    "--data_path data/clip16 --vid clip16 --conv_type convnext pshuffel --act gelu --norm none --crop_list 180_320 "
    "--resize_list -1 --loss L2 --enc_strds 5 2 2 --enc_dim 32_4 --dec_strds 5 2 2 --ks 0_1_5 --reduce 1.2 "
    "--modelsize 0.3 --eval_freq 30 --lower_width 12 -j 1 -p 1000 --outf out"
)
ENERV_MODEL = {
    "pos_l": 40,
    "xypos_l": 40,
    "stem_dim_num": "128",
    "fc_hw_dim": "9_16_32",
    "stride_list": [5, 2, 2],
    "expansion": 1.5,
    "lower_width": 24,
    "block_dim": 64,
    "mlp_dim": 64,
}


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One program."""

    name: str
    commit: str
    rate: float
    """Its learning rate as published."""
    batch: int
    ours: str
    """The codec of the same idea."""
    params: int
    """Of what has to be stored: an encoder is not, embeddings are."""

    def absent(self, folder: Path | None) -> str:
        """Why it cannot run; empty if it can."""
        if folder is None:
            return f"{self.name}: left out, no --peers FOLDER with a checkout (see benchmarks/video/peers.py)"
        script = _script(self, folder / self.name)
        return "" if script.exists() else f"{self.name}: left out, {script} is not there"


PEERS = (
    Peer(name="NeRV", commit="6904589", rate=5e-4, batch=1, ours="nerv", params=689_561),
    Peer(name="E-NeRV", commit="9f3529a", rate=5e-4, batch=1, ours="enerv", params=378_803),
    Peer(name="HNeRV", commit="4872129", rate=1e-3, batch=2, ours="hnerv", params=295_956),
)


@dataclass(frozen=True)
class Tuning:
    """What is changed of the published settings."""

    rate_factor: float = 1.0
    batch: int | None = None

    @property
    def name(self) -> str:
        """As the record has it."""
        rate = "published" if self.rate_factor == 1 else f"rate x{self.rate_factor:g}"
        return rate if self.batch is None else f"{rate}, batch {self.batch}"


@dataclass(frozen=True)
class Place:
    """Where peers are, and with what they run."""

    folder: Path
    python: Path

    def run(self, peer: Peer, tuning: Tuning, footage: Footage, *, epochs: int = EPOCHS) -> Run:
        """Fit in a scratch folder, draw the frames in another process, measure them."""
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            batch = tuning.batch or peer.batch
            fit = _Fit(peer, self.folder / peer.name, scratch, peer.rate * tuning.rate_factor, batch, epochs)
            write_pictures(footage.frames, scratch / "data" / "clip16")
            start = time.monotonic()
            cost = self._launch(scratch, *fit.command())
            wall = time.monotonic() - start
            self._launch(scratch, *fit.drawing())
            decoded = _read(peer, scratch, footage.frames.shape)
        run = Run(
            tier="T1",
            clip=footage.name,
            system=peer.name,
            preset=tuning.name,
            commit=peer.commit,
            params=peer.params,
            enc_cpu_s=cost["cpu_s"],
            enc_wall_s=wall,
            own_metrics_cpu_s=cost["evaluation_cpu_s"],
            peak_mem_mb=cost["peak_mem_mb"],
            steps=epochs * (len(footage.frames) // batch),
            seed=1,
        )
        return run.showing(decoded, footage.frames)

    def _launch(self, scratch: Path, *arguments: str) -> Mapping[str, float]:
        command = [str(self.python), str(LAUNCHER), "cost.json", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        costs: Mapping[str, float] = json.loads((scratch / "cost.json").read_text())
        return costs


@dataclass(frozen=True)
class _Fit:
    """One fit of one program, as its command lines."""

    peer: Peer
    checkout: Path
    scratch: Path
    rate: float
    batch: int
    epochs: int

    def command(self) -> Sequence[str]:
        """Script and arguments; of E-NeRV the settings file is written."""
        script = str(_script(self.peer, self.checkout))
        if self.peer.name == "E-NeRV":
            (self.scratch / "cfg.yaml").write_text(yaml.safe_dump(self._enerv_settings()))
            return script, *"--cfg_path cfg.yaml --output_dir out --time_str t --device cpu".split()
        settings = NERV if self.peer.name == "NeRV" else HNERV
        return script, *settings.split(), *f"-e {self.epochs} --lr {self.rate:g} -b {self.batch} --overwrite".split()

    def drawing(self) -> Sequence[str]:
        """What writes frames as PNGs: the peer's own evaluation, or ours of E-NeRV's checkpoint."""
        if self.peer.name == "E-NeRV":
            return str(self.checkout), "out/checkpoint.pth", "drawn"
        checkpoint = str(next(self.scratch.rglob("model_latest.pth")))
        again = [each for each in self.command() if each != "--overwrite"]
        return *again, "--suffix", "drawn", "--eval_only", "--dump_images", "--weight", checkpoint

    def _enerv_settings(self) -> dict[str, object]:
        """The published file with another clip's sizes."""
        shipped = yaml.safe_load((self.checkout / "cfgs" / "E-NeRV-bunny.yaml").read_text())
        return {
            **shipped,
            "dataset_path": "data/clip16",
            "model": {**shipped["model"], **ENERV_MODEL},
            "optim": {**shipped["optim"], "lr": self.rate},
            "train_batchsize": self.batch,
            "workers": 1,
            "epoch": self.epochs,
            "eval_freq": 20,
        }


def _script(peer: Peer, checkout: Path) -> Path:
    files = {"NeRV": "train_nerv.py", "E-NeRV": "main.py", "HNeRV": "train_nerv_all.py"}
    return checkout / files[peer.name]


def _read(peer: Peer, scratch: Path, shape: tuple[int, ...]) -> Frames:
    """Frames (T, 3, H, W) in order; HNeRV's pictures have the original at their left."""
    folders = [path for path in scratch.rglob("*") if path.name in ("visualize", "visualize_model_orig", "drawn")]
    paths = [path for folder in folders for path in folder.glob("pred_*.png")]
    frames = np.zeros(shape, np.uint8)
    if len(paths) != len(frames):
        raise SystemExit(f"{peer.name} drew {len(paths)} frames of {len(frames)}")
    for path in paths:
        picture = np.asarray(Image.open(path).convert("RGB"))[:, -shape[3] :]
        frames[int(re.findall(r"\d+", path.name)[0])] = picture.transpose(2, 0, 1)
    return frames


def python_of(path: Path | None) -> Path:
    """The interpreter that was named, or this one."""
    return path or Path(sys.executable)
