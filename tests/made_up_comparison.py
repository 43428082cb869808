"""Rows of a comparison with a planted truth, as guide.comparing.reading writes them."""

from math import nan

import numpy as np
import pandas as pd

LOOKS = {"saturation": 0.4, "contrast": 0.2, "high_frequency": 0.1}


def rows(gains=None, prompts=10, seeds=4, styles=("baroque",), noise=0.3, named=(True,), which="report", start=0, known=True):
    """`gains`: arm -> (strategy, strength, guide's gain, verdict's gain); each prompt has a share of its own in every gain."""
    gains = {"clean-image 10": ("clean-image", 10.0, 1.0, 0.5)} if gains is None else gains
    draws = np.random.default_rng([prompts, seeds, start])
    arms = {"unguided": ("unguided", 0.0, 0.0, 0.0)} | gains
    found = []
    for style in styles:
        for words in named:
            for prompt in range(prompts):
                shared = {arm: noise * draws.normal(size=2) * (arm != "unguided") for arm in arms}
                for seed in range(start, start + seeds):
                    base, plain = draws.normal(size=2), draws.normal(size=6)
                    for arm, (strategy, strength, *gain) in arms.items():
                        odds = base + np.array(gain) + shared[arm] + noise * draws.normal(size=2) * (arm != "unguided")
                        judged = odds[1] if known else nan
                        found.append(
                            {
                                "set": which, "model": "embedded", "setting_steps": 25, "guidance_scale": 4.0, "style": style,
                                "named": words,
                                "prompt": f"{prompt}", "seed": seed, "arm": arm, "strategy": strategy, "strength": strength, "sampler": "",
                                "candidates": 1, "steps": 25, "baseline": "unguided", "seconds": 1.0 + (arm != "unguided"),
                                "denoiser_calls": 50.0, "decodes": 1.0, "encoder_calls": 0.0, "peak_memory": 1.0,
                                "image": f"{style}_{words}/{seed}-{arm}-{prompt}.png", "style_log_odds": odds[0],
                                "style_probability": 0.5,
                                "style_top": style, "year": 1650.0, "year_error": 0.0, "content": nan, "artifacts": nan, **LOOKS,
                                "verdict_log_odds": judged, "verdict_probability": 0.5, "verdict_style": style,
                                "verdict_kept": bool(judged > 0),
                                "verdict_year": 1650.0, "verdict_year_error": 0.0, "verdict_severity": 0.1 + 0.01 * draws.random(),
                                "referee_log_odds": judged + 0.1 * draws.normal(), "referee_probability": 0.5, "referee_style": style,
                                "referee_kept": bool(judged > 0),
                                "referee_year": 1650.0, "referee_year_error": 0.0, "referee_severity": 0.1,
                                "ms_ssim": 1.0 if arm == "unguided" else 0.8, "feature_distance": 0.0 if arm == "unguided" else 0.1,
                                "features": np.concatenate([plain, [strength / 10]]),
                            }
                        )  # fmt: skip
    frame = pd.DataFrame(found)
    kept = {name: (frame[name] if known else pd.Series(pd.NA, frame.index)).astype("boolean") for name in ("verdict_kept", "referee_kept")}
    return frame.assign(**kept).sample(frac=1, random_state=0)  # pairing must not rest on the order
