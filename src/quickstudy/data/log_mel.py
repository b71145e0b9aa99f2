"""Log-mel spectrograms: sound as an image of time and pitch, in plain torch.

frames      x_t[n] = w[n] x[hop·t + n],  w the periodic Hann window of ``frame`` samples
power       P_t[k] = |FFT(x_t)[k]|²
mel scale   m(f) = 2595 log10(1 + f/700)                        (O'Shaughnessy 1987)
filters     triangles, whose corners are ``bands + 2`` points at equal distances on the mel scale
log-mel     ln(filters · P + floor)
"""

import math

import torch
from torch import Tensor


def hertz_to_mel(hertz: Tensor) -> Tensor:
    """m(f) = 2595 log10(1 + f/700)."""
    return 2595 * torch.log10(1 + hertz / 700)


def mel_to_hertz(mel: Tensor) -> Tensor:
    """The inverse: f(m) = 700 (10^(m/2595) − 1)."""
    return 700 * (10 ** (mel / 2595) - 1)


def mel_corners(bands: int, *, low: float, high: float) -> Tensor:
    """The corners of the triangles in hertz, (bands + 2,): band b rises from b, is 1 at b + 1 and ends at b + 2."""
    ends = hertz_to_mel(torch.tensor([low, high], dtype=torch.float64))
    return mel_to_hertz(ends[0] + (ends[1] - ends[0]) * torch.arange(bands + 2, dtype=torch.float64) / (bands + 1))


def mel_filters(bands: int, *, frame: int, rate: int, low: float = 0.0, high: float | None = None) -> Tensor:
    """Triangular filters on the mel scale, (bands, frame // 2 + 1).

    Args:
        bands: how many triangles.
        frame: samples of a frame.
        rate: samples per second.
        low, high: the outer corners in hertz; ``high`` is rate/2 by default.

    Raises:
        ValueError: corners out of order or above rate/2, or a band so narrow that no frequency of the frame is in it.
    """
    high = rate / 2 if high is None else high
    if bands < 1 or not 0 <= low < high <= rate / 2:
        raise ValueError(
            f"bands={bands} between {low:g} and {high:g} Hz at {rate} samples per second; required are 1 band or more "
            f"and 0 ≤ low < high ≤ {rate / 2:g}"
        )
    corners = mel_corners(bands, low=low, high=high)
    hertz = torch.arange(frame // 2 + 1, dtype=torch.float64) * rate / frame  # of each line of the FFT
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    filters = torch.minimum((hertz - left) / (middle - left), (right - hertz) / (right - middle)).clamp(min=0)
    empty = (filters.sum(1) == 0).nonzero().flatten()
    if len(empty):
        b = int(empty[0])
        raise ValueError(
            f"band {b} of {bands} ({float(corners[b]):.0f} to {float(corners[b + 2]):.0f} Hz) holds no frequency of "
            f"frames of {frame} samples, which are {rate / frame:.1f} Hz apart: take fewer bands or longer frames"
        )
    return filters


def log_mel(
    x: Tensor,
    *,
    rate: int,
    bands: int = 40,
    frame: int = 256,
    hop: int = 128,
    low: float = 0.0,
    high: float | None = None,
    floor: float = 1e-6,
) -> Tensor:
    """Sound → the logarithm of its power in mel bands over time.

    Args:
        x: (..., samples), at least ``frame`` of them, as numbers in [−1, 1].
        rate: samples per second.
        bands, frame, low, high: see ``mel_filters``.
        hop: samples from one frame to the next.
        floor: power that is added before the logarithm; what is quieter counts as silence.

    Returns:
        (..., bands, frames), 1 + (samples − frame) // hop of them, in nats of power; the lowest band first.

    Raises:
        ValueError: whole numbers, fewer samples than a frame, or filters that ``mel_filters`` refuses.
    """
    if not x.is_floating_point():
        raise ValueError(f"samples of type {x.dtype}; required are numbers in [-1, 1]: divide 16-bit samples by 32768")
    if x.shape[-1] < frame or hop < 1 or not floor > 0:
        raise ValueError(
            f"{x.shape[-1]} samples in frames of {frame} with hop={hop} and floor={floor}; required are as many "
            "samples as a frame has, a hop of 1 or more and a floor above 0: pad the sound with silence, or take "
            "shorter frames"
        )
    filters = mel_filters(bands, frame=frame, rate=rate, low=low, high=high).to(x)
    n = torch.arange(frame, dtype=torch.float64, device=x.device)
    window = (0.5 - 0.5 * torch.cos(2 * math.pi * n / frame)).to(x.dtype)
    power = torch.fft.rfft(x.unfold(-1, frame, hop) * window).abs().square()  # (..., frames, frame // 2 + 1)
    return torch.log(power @ filters.T + floor).transpose(-1, -2)  # (..., bands, frames)
