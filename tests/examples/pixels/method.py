"""Class means of pixels, as a distiller."""

import torch

from engine.accel import Accel
from engine.data.base import Dataset
from engine.distill.base import ImageDistiller, StepReport, check_finite
from engine.distill.images import class_batch, to_space
from engine.spec import RunSpec


class Method(ImageDistiller):
    def setup(self, spec: RunSpec, data: Dataset, accel: Accel) -> None:
        super().setup(spec, data, accel)
        self.optimiser = torch.optim.SGD([self.images], lr=self.own.lr_img)

    def step(self) -> StepReport:
        count, classes = self.own.batch_real, range(len(self.data.classes))
        batches = [class_batch(self.data, c, count, self.generator) for c in classes]
        real = torch.stack([to_space(self.data, batch, self.zca).mean(0) for batch in batches])
        mine = self.images.unflatten(0, (len(classes), -1)).mean(1)  # (K, C, H, W), as are the real ones
        loss = (mine - real.to(self.accel.device)).square().sum()
        self.optimiser.zero_grad()
        loss.backward()
        check_finite(loss, self.images.grad)
        self.optimiser.step()
        self.count += 1
        return StepReport(self.count, loss.item())
