"""What a process may take of its machine: its share of the memory, and a device that is there."""

import pytest
import torch

from data_pipelines.jobs.processes import available_memory, device_of_process
from emulators.training.hardware import Hardware, Slurm


def test_processes_share_the_memory_of_a_node_unless_each_has_a_gpu():
    whole, shared = (Hardware(slurm=Slurm(memory="8G"), devices=n) for n in (1, 4))
    assert (available_memory("cpu", whole), available_memory("cpu", shared)) == (8e9, 2e9)
    assert available_memory("cpu", Hardware(devices=2)) < 0.75 * available_memory("cpu", Hardware())


def test_the_device_is_that_of_the_hardware_that_was_chosen():
    gpu = "cuda" if torch.cuda.is_available() else "cpu"
    assert device_of_process("auto", None) == gpu
    assert device_of_process("auto", Hardware(accelerator="auto")) == gpu
    assert device_of_process("auto", Hardware(accelerator="cpu")) == "cpu"
    assert device_of_process("cpu", Hardware(accelerator="gpu")) == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    for name, chosen in (("cuda", None), ("cuda:1", None), ("auto", Hardware(accelerator="gpu"))):
        with pytest.raises(ValueError, match="PyTorch finds no GPU; use device=auto or device=cpu"):
            device_of_process(name, chosen)
