"""DDIM run backward (arXiv:2010.02502, section 4.3): from a picture's latents to the noise that leads to them."""
from types import SimpleNamespace

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from probes.errors import UserError


class Backward(DDIMScheduler):
    """The steps of a `DDIMScheduler` in the opposite order, each exactly its inverse for the same prediction.

    What is left of error is the method's own: the prediction is made on the picture before the step, not on the one after it, which is
    not known yet. It shrinks with more steps. Diffusers' own inverse scheduler counts its steps otherwise than the forward one where the
    spacing is trailing, and does not lead back.
    """

    def set_timesteps(self, num_inference_steps: int, device=None, **more) -> None:
        super().set_timesteps(num_inference_steps, device, **more)
        self.timesteps = self.timesteps.flip(0)

    def step(self, model_output: Tensor, timestep, sample: Tensor, return_dict: bool = True, **ignored):
        """`sample` of the level before `timestep` to that of `timestep`: solved from `sample` = a' x0 + b' eps and the prediction."""
        before = int(timestep) - self.config.num_train_timesteps // self.num_inference_steps
        a, b = self._level(int(timestep), sample)
        a_before, b_before = self._level(before, sample)
        output = model_output[:, :sample.shape[1]]
        if self.config.prediction_type == "epsilon":
            noise, clean = output, (sample - b_before * output) / a_before
        elif self.config.prediction_type == "v_prediction":  # v = a eps - b x0
            whole = a_before * a + b_before * b
            clean, noise = (a * sample - b_before * output) / whole, (b * sample + a_before * output) / whole
        elif self.config.prediction_type == "sample":
            if not float(b_before):
                raise UserError("A model that predicts the clean picture cannot be inverted by DDIM; leave --invert out.")
            clean, noise = output, (sample - a_before * output) / b_before
        found = a * clean + b * noise
        return SimpleNamespace(prev_sample=found) if return_dict else (found,)

    def _level(self, timestep: int, like: Tensor) -> tuple[Tensor, Tensor]:
        share = self.alphas_cumprod[timestep] if timestep >= 0 else self.final_alpha_cumprod
        share = torch.as_tensor(share).to(like.device, torch.float32)
        return share.sqrt(), (1 - share).sqrt()
