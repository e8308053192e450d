"""Every metric by name: what it says, its unit, which way is better, and where it is defined."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """What a reader of a table must know about one column."""

    name: str
    unit: str
    higher_is_better: bool | None
    """None: neither way is better (a property, not a quality)."""
    what: str
    source: str

    @property
    def arrow(self) -> str:
        """The direction as tables print it."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("PSNR", "dB", True, "peak signal-to-noise ratio, mean over frames", "definition"),
        Metric("SSIM", "", True, "structural similarity, Gaussian 11x11, sigma 1.5", "Wang et al. 2004"),
        Metric("LPIPS-alex", "", False, "perceptual distance, AlexNet", "arXiv 1801.03924"),
        Metric("LPIPS-vgg", "", False, "perceptual distance, VGG16", "arXiv 1801.03924"),
        Metric("CLIP-F", "", True, "CLIP similarity to the condition, front view", "arXiv 2405.16645, 4.1"),
        Metric("CLIP-O", "", True, "CLIP similarity to the condition, orbit", "arXiv 2405.16645, 4.1"),
        Metric("CLIP-S", "", True, "CLIP similarity to the true frame", "arXiv 2407.17470, 4.1"),
        Metric("FVD-F", "", False, "Fréchet video distance, frames run at each view", "arXiv 2407.17470"),
        Metric("FVD-V", "", False, "Fréchet video distance, views run at each frame", "arXiv 2407.17470"),
        Metric("FVD-Diag", "", False, "Fréchet video distance, views and frames run", "arXiv 2407.17470"),
        Metric("FV4D", "", False, "Fréchet video distance, whole view x time matrix", "arXiv 2407.17470"),
        Metric("IoU", "", True, "silhouette intersection over union, alpha above 1/2", "definition"),
        Metric("flicker", "", False, "mean absolute second difference over time", "definition"),
        Metric("seconds", "s", False, "wall time of the generation", "this machine"),
        Metric("motion_of_truth", "", None, "motion magnitude of the truth", "arXiv 2405.16645, eq. 1"),
        Metric("motion", "", None, "motion magnitude m against the static orbit", "arXiv 2405.16645, eq. 1"),
    )
}

#: FVD form that a clip of each rig belongs to: what runs along its frames.
FVD_OF_RIG = {"dynamic_orbit": "FVD-Diag", "front_view": "FVD-F", "static_orbit": "FVD-V"}
#: CLIP score that a clip of each rig belongs to.
CLIP_OF_RIG = {"dynamic_orbit": "CLIP-O", "static_orbit": "CLIP-O", "front_view": "CLIP-F"}
