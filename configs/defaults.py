"""Every key of a recipe with its default. A recipe names only what differs; an unknown key is an error.

``CHOICES`` and ``BOUNDS`` limit single keys; the type of a default is the type of its key.
"""

from __future__ import annotations

from yacs.config import CfgNode

CHOICES = {
    "DATA.NORMALIZATION": ("manifest", "range", "per_chip", "none"),
    "TRAIN.OPTIMIZER": ("adam", "adamw", "sgd"),
    "TRAIN.SCHEDULER": ("none", "plateau", "cosine", "onecycle"),
    "TRAIN.LOSS": ("auto", "bce", "dice", "bce_dice", "ce", "l1", "ssim", "mixed-gradient", "gaussian-nll"),
    "TRAIN.PRECISION": ("32-true", "bf16-mixed", "16-mixed"),
    "TRAIN.DEVICE": ("auto", "cpu", "cuda"),
    "TRAIN.MONITOR": ("auto", "val/iou", "val/macro_f1", "val/psnr", "val/loss"),
}

# Choices that may be added up, each with a factor or none: ``l1+0.5*ssim``.
SUMS = ("TRAIN.LOSS",)

# Smallest and largest allowed value; None = open.
BOUNDS = {
    "AUGMENT.CROP": (0, 65536),
    "AUGMENT.GAIN": (0.0, 10.0),
    "AUGMENT.BIAS": (0.0, 10.0),
    "AUGMENT.GAMMA": (0.0, 10.0),
    "AUGMENT.NOISE": (0.0, 10.0),
    "AUGMENT.PROBABILITY": (0.001, 1.0),
    "AUGMENT.BAND_DROP": (0.0, 1.0),
    "AUGMENT.LINES": (0.0, 1.0),
    "AUGMENT.REGIONS": (0.0, 1.0),
    "AUGMENT.ORBITS": (0.0, 1.0),
    "AUGMENT.SHIFT": (0.0, 16.0),
    "TRAIN.EPOCHS": (1, 100_000),
    "TRAIN.BATCH_SIZE": (1, 65536),
    "TRAIN.LR": (1e-12, 100.0),
    "TRAIN.WEIGHT_DECAY": (0.0, 10.0),
    "TRAIN.MOMENTUM": (0.0, 0.9999),
    "TRAIN.WARMUP": (0.0, 0.95),
    "TRAIN.PLATEAU_FACTOR": (1e-6, 0.999),
    "TRAIN.PLATEAU_PATIENCE": (0, 100_000),
    "TRAIN.POS_WEIGHT": (1e-6, 1e6),
    "TRAIN.LABEL_SMOOTHING": (0.0, 0.9),
    "TRAIN.PATIENCE": (0, 100_000),
    "TRAIN.ACCUMULATE": (1, 65536),
    "TRAIN.CLIP_NORM": (0.0, 1e6),
    "TRAIN.EMA": (0.0, 0.99999),
    "TRAIN.THREADS": (0, 4096),
    "TRAIN.CHECKPOINT_EVERY": (1, 100_000),
    "TRAIN.DEVICES": (1, 1024),
    "TRAIN.NODES": (1, 65536),
    "SEED": (0, 2**31 - 1),
}

# Nodes whose keys are not fixed here: a model's own arguments.
FREE = ("MODEL.ARGS",)


def get_defaults() -> CfgNode:
    """A fresh, mutable configuration with every key at its default."""
    cfg = CfgNode()

    cfg.DATA = CfgNode()
    cfg.DATA.ROOT = "data"  # folder of all data sets: <ROOT>/<NAME>/<VERSION>/dataset.json
    cfg.DATA.NAME = ""  # data set, e.g. ombria
    cfg.DATA.VERSION = "1.0.0"  # its version
    cfg.DATA.BANDS = []  # bands by name, in this order; empty: all of the image
    cfg.DATA.DERIVED = []  # further channels, "a-b" = band a minus band b in physical units
    cfg.DATA.NORMALIZATION = "manifest"  # manifest: training mean and sd; range: its min…max to 0…1; per_chip; none
    cfg.DATA.PARTIAL = False  # a pixel counts where any band has data (a scene that misses an orbit), not only all
    cfg.DATA.TRAIN_SPLIT = "train"  # split to learn from
    cfg.DATA.VAL_SPLIT = "val"  # split that selects the epoch

    cfg.AUGMENT = CfgNode()
    cfg.AUGMENT.FLIP = False  # random mirror images, both axes
    cfg.AUGMENT.ROTATE90 = False  # random quarter turns
    cfg.AUGMENT.CROP = 0  # side of a random square crop in pixels; 0: the whole chip
    cfg.AUGMENT.GAIN = 0.0  # multiply by 1 + U(-GAIN, GAIN), per chip and channel (pairs: one factor for both inputs)
    cfg.AUGMENT.BIAS = 0.0  # add U(-BIAS, BIAS), in units of the normalised channel
    cfg.AUGMENT.GAMMA = 0.0  # intensity curve x -> x^g with log g from U(-GAMMA, GAMMA)
    cfg.AUGMENT.NOISE = 0.0  # add Gaussian noise of a standard deviation from U(0, NOISE)
    cfg.AUGMENT.PROBABILITY = 1.0  # share of chips that each of GAIN, BIAS, GAMMA and NOISE touches
    cfg.AUGMENT.BAND_DROP = 0.0  # probability that a channel is 0 everywhere (one always stays)
    cfg.AUGMENT.LINES = 0.0  # probability of a line without data
    cfg.AUGMENT.REGIONS = 0.0  # probability of a rectangle without data, up to a quarter of the side
    cfg.AUGMENT.ORBITS = 0.0  # probability that one orbit (bands _asc or _desc) is missing in a rectangle or all over
    cfg.AUGMENT.SHIFT = 0.0  # pairs: move the registration of the inputs by U(-SHIFT, SHIFT) target pixels

    cfg.MODEL = CfgNode()
    cfg.MODEL.NAME = ""  # a registered model or trivial row, e.g. unet, otsu
    cfg.MODEL.ARGS = CfgNode(new_allowed=True)  # its arguments, e.g. encoder: resnet18

    cfg.TRAIN = CfgNode()
    cfg.TRAIN.EPOCHS = 20  # passes over the training split, at most
    cfg.TRAIN.BATCH_SIZE = 16  # chips per step
    cfg.TRAIN.ACCUMULATE = 1  # steps whose gradients are summed up before the weights move
    cfg.TRAIN.OPTIMIZER = "adamw"  # adam, adamw or sgd
    cfg.TRAIN.LR = 1e-3  # (highest) learning rate
    cfg.TRAIN.WEIGHT_DECAY = 0.0  # L2 (adam, sgd) or decoupled (adamw) decay of the weights
    cfg.TRAIN.MOMENTUM = 0.9  # of sgd
    cfg.TRAIN.SCHEDULER = "none"  # none, plateau, cosine or onecycle
    cfg.TRAIN.WARMUP = 0.0  # share of all steps in which the rate rises (cosine, onecycle)
    cfg.TRAIN.PLATEAU_FACTOR = 0.5  # plateau: the rate is multiplied by this
    cfg.TRAIN.PLATEAU_PATIENCE = 10  # plateau: after so many epochs without a better MONITOR
    # Pairs of reflectance: l1, ssim, mixed-gradient, gaussian-nll and sums such as l1+0.5*ssim; auto: l1.
    cfg.TRAIN.LOSS = "auto"  # bce, dice, bce_dice (one logit), ce; auto: bce for binary masks, else ce
    cfg.TRAIN.POS_WEIGHT = 1.0  # bce: weight of a positive pixel
    cfg.TRAIN.CLASS_WEIGHTS = []  # ce: one weight per class; empty: all alike
    cfg.TRAIN.LABEL_SMOOTHING = 0.0  # s: targets become (1 - s) t + s / classes
    cfg.TRAIN.CLIP_NORM = 0.0  # longest allowed gradient; 0: no limit
    cfg.TRAIN.EMA = 0.0  # decay of a running mean of the weights, used for validation and kept; 0: off
    cfg.TRAIN.PRECISION = "32-true"  # 32-true, bf16-mixed or 16-mixed (16-mixed on GPUs only)
    cfg.TRAIN.PATIENCE = 0  # stop after so many epochs without a better MONITOR; 0: never
    cfg.TRAIN.MONITOR = "auto"  # what selects the epoch: val/iou, val/macro_f1, val/psnr or val/loss; auto: by task
    cfg.TRAIN.INIT = ""  # folder or Hugging Face repository of weights to start from
    cfg.TRAIN.INIT_SHA256 = ""  # of their model.safetensors; empty: what INIT holds at the start is noted here
    cfg.TRAIN.DEVICE = "auto"  # auto, cpu or cuda
    cfg.TRAIN.THREADS = 0  # CPU threads; 0: all cores
    cfg.TRAIN.RESUME = True  # go on from last.ckpt where there is one
    cfg.TRAIN.CHECKPOINT_EVERY = 1  # epochs between two writings of last.ckpt
    cfg.TRAIN.COMPILE = False  # torch.compile the network: slower start, faster steps
    cfg.TRAIN.DEVICES = 1  # processes on this machine, one per GPU (on CPUs by gloo); BATCH_SIZE is that of each
    cfg.TRAIN.NODES = 1  # machines, started by torchrun or Slurm
    cfg.TRAIN.CALIBRATE = False  # scale the logits by the temperature that fits the validation split best

    cfg.SEED = 0  # of the starting weights and of every random draw
    cfg.OUTPUT = "runs"  # folder of all runs
    return cfg
