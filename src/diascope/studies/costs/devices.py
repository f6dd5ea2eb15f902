"""A machine room that is not here: what its GPUs, network and disks are taken to do."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from diascope.studies.costs.flops import model_flops, step_flops
from diascope.studies.costs.passes import objective_passes
from diascope.studies.costs.speed import Speed
from diascope.studies.costs.stages import Stage


@dataclass(frozen=True)
class Room:
    """GPUs in machines of `per_node`, and what each part is assumed to do; nothing is measured.

    flops: operations a second in training, and launch: seconds for each layer of a pass, below
    which no pass goes however few its images. Their defaults are what NVIDIA publishes for
    ResNet-50 in mixed precision (DeepLearningExamples, PyTorch/Classification/ConvNets/
    resnet50v1.5, README): 2,470 images a second in training on an A100, of 24.4 GFLOP each; and 13
    ms for one image forward (on a V100), 199 modules. efficiency: of several GPUs, without their
    talk; 6.72 times the images on 8 GPUs there. bandwidth: bytes a second between GPUs of one
    machine and between machines, latency: seconds of a step of the ring. reader: bytes of pixels a
    second that one process reads, augmentation included; disk: bytes a second of a machine's.
    """

    flops: float = 60e12
    launch: float = 65e-6
    efficiency: float = 0.85
    per_node: int = 8
    bandwidth: float = 100e9
    bandwidth_between: float = 12.5e9
    latency: float = 20e-6
    reader: float = 1e9
    disk: float = 3e9

    def speed(self, stage: Stage) -> Speed:
        """Return the speed of one GPU, derived from the operations of the model."""
        model = model_flops(stage)
        passes = objective_passes(stage.objective, stage.classes)
        return Speed(
            image=step_flops(stage) / self.flops,
            forward=model.forward / self.flops,
            source=f"assumed: {self.flops / 1e12:g} TFLOP/s",
            least=passes.units * model.layers * self.launch,
            least_pass=model.layers * self.launch,
        )

    def step(self, stage: Stage, speed: Speed, gpus: int) -> float:
        """Return the seconds of a step that is shared by `gpus`: the slowest of its parts.

        Each takes its share of the batch, or waits for its images where reading is slower; then
        all-reduce sums the gradients in a ring, 2 (n - 1) / n of their bytes (Patarasuk and Yuan
        2009), here not hidden behind the backward pass.
        """
        gpus = min(gpus, max(1, int(stage.batch)))
        work = speed.step(ceil(stage.batch / gpus)) / (1.0 if gpus == 1 else self.efficiency)
        return max(work, self.reading(stage, gpus)) + self.talking(stage, gpus)

    def reading(self, stage: Stage, gpus: int) -> float:
        """Return the seconds in which `gpus` processes read the images of a step."""
        data = stage.config.data
        size = stage.batch * data.size**2 * data.channels
        return size / min(gpus * self.reader, ceil(gpus / self.per_node) * self.disk)

    def talking(self, stage: Stage, gpus: int) -> float:
        """Return the seconds of summing the gradients, 4 bytes each, over `gpus`."""
        if gpus == 1:
            return 0.0
        size = 4 * model_flops(stage).parameters
        within = gpus <= self.per_node
        bandwidth = self.bandwidth if within else min(self.bandwidth, self.bandwidth_between)
        steps = 2 * (gpus - 1)
        return steps / gpus * size / bandwidth + steps * self.latency

    def seconds(self, stage: Stage, speed: Speed, gpus: int = 1) -> float:
        """Return the seconds of a whole stage on `gpus`; the images of validation are shared."""
        alone = speed.validation(stage)
        shared = max(alone / gpus, min(alone, speed.least_pass))
        epoch = stage.steps * self.step(stage, speed, gpus) + shared
        return stage.epochs * epoch + stage.preparing * speed.forward / gpus

    def lines(self) -> list[str]:
        """Return in words what is assumed."""
        return [
            f"assumed of a GPU: {self.flops / 1e12:g} TFLOP/s in training, "
            f"{self.launch * 1e6:g} us a layer and pass at least; of several: "
            f"{self.efficiency:.0%} of that each",
            f"assumed of {self.per_node} GPUs a machine: {self.bandwidth / 1e9:g} GB/s within, "
            f"{self.bandwidth_between / 1e9:g} GB/s between machines, {self.reader / 1e9:g} GB/s "
            f"of pixels a reader, {self.disk / 1e9:g} GB/s a machine's disk",
        ]
