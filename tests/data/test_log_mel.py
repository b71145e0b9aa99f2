"""Log-mel spectrograms against closed forms: pure tones, impulses and the formula of a triangle."""

import math

import numpy as np
import pytest
import torch

from quickstudy.data.log_mel import hertz_to_mel, log_mel, mel_corners, mel_filters, mel_to_hertz

RATE, FRAME = 8000, 256


def tone(hertz: float, samples: int = 2048) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(samples, dtype=torch.float64) / RATE)


def test_the_mel_scale():
    hertz = torch.tensor([0.0, 700.0, 1000.0, 4000.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 2595 * math.log10(2), 999.9855, 2146.0646], dtype=torch.float64)
    torch.testing.assert_close(hertz_to_mel(hertz), expected, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(mel_to_hertz(hertz_to_mel(hertz)), hertz)


def test_filters_are_the_formula_of_a_triangle():
    bands, filters = 20, mel_filters(20, frame=FRAME, rate=RATE)
    most = 2595 * math.log10(1 + 4000 / 700)
    corner = [700 * (10 ** (most * i / (bands + 1) / 2595) - 1) for i in range(bands + 2)]
    assert filters.shape == (bands, FRAME // 2 + 1)
    for b in range(bands):
        for k in range(FRAME // 2 + 1):
            f = k * RATE / FRAME
            rise, fall = (
                (f - corner[b]) / (corner[b + 1] - corner[b]),
                (corner[b + 2] - f) / (corner[b + 2] - corner[b + 1]),
            )
            assert float(filters[b, k]) == pytest.approx(max(0.0, min(rise, fall)), abs=1e-9)


@pytest.mark.parametrize("band", [3, 10, 17, 19])
def test_a_pure_tone_lands_in_its_band(band):
    hertz = float(mel_corners(20, low=0, high=4000)[band + 1])  # the peak of that band
    found = log_mel(tone(hertz), rate=RATE, bands=20, frame=FRAME)
    assert found.shape == (20, 1 + (2048 - FRAME) // 128)
    assert bool((found.argmax(0) == band).all())


def test_the_power_of_a_tone_on_a_line_of_the_transform():
    """A tone of amplitude a on line k, under a Hann window: |X_k| = a·frame/4, and half of that on both sides."""
    k = 40
    found = log_mel(tone(k * RATE / FRAME), rate=RATE, bands=20, frame=FRAME, floor=1e-12)
    filters = mel_filters(20, frame=FRAME, rate=RATE)
    peak = 0.5 * FRAME / 4
    power = filters[:, k] * peak**2 + (filters[:, k - 1] + filters[:, k + 1]) * (peak / 2) ** 2
    heard = power > 1e-6
    torch.testing.assert_close(found[heard, 0].exp(), power[heard], rtol=1e-6, atol=1e-9)


def test_frames_stand_a_hop_apart_and_silence_is_the_floor():
    x = torch.zeros(3, 1024)
    x[:, 700] = 1.0
    found = log_mel(x, rate=RATE, bands=20, frame=FRAME, hop=100, floor=1e-3)
    assert found.shape == (3, 20, 8)
    heard = [t * 100 < 700 < t * 100 + FRAME for t in range(8)]
    assert (found[0].amax(0) > math.log(1.1e-3)).tolist() == heard
    torch.testing.assert_close(found[:, :, 0], torch.full((3, 20), math.log(1e-3)))
    torch.testing.assert_close(found[0], found[2])


def test_one_frame_against_numpy(generator):
    x = torch.randn(FRAME, generator=generator, dtype=torch.float64)
    window = np.hanning(FRAME + 1)[:-1]
    power = np.abs(np.fft.rfft(window * x.numpy())) ** 2
    expected = np.log(mel_filters(20, frame=FRAME, rate=RATE, low=100, high=3000).numpy() @ power + 1e-6)
    found = log_mel(x, rate=RATE, bands=20, frame=FRAME, low=100, high=3000)
    np.testing.assert_allclose(found[:, 0].numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: log_mel(torch.zeros(100), rate=RATE), "100 samples in frames of 256.*pad the sound"),
        (lambda: log_mel(torch.zeros(500), rate=RATE, hop=0), "hop=0"),
        (lambda: log_mel(torch.zeros(500), rate=RATE, floor=0), "floor=0"),
        (lambda: mel_filters(20, frame=256, rate=RATE, high=5000), r"between 0 and 5000 Hz.*≤ 4000"),
        (lambda: mel_filters(0, frame=256, rate=RATE), "bands=0"),
        (lambda: mel_filters(120, frame=256, rate=RATE), "holds no frequency.*31.2 Hz apart: take fewer bands"),
    ],
)
def test_what_cannot_be_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
