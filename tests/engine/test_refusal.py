"""Memory that runs out is recognised whichever library says it, and nothing else is mistaken for it."""

import errno

import pytest
import torch
from safetensors import SafetensorError

from dreambooth_cli.engine.refusal import out_of_memory_words

SAID = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB"),
    RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("HIP error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasGemmEx( handle, opa, opb, m, n, k)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED."),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`"),
    RuntimeError("miopenStatusAllocFailed"),
    RuntimeError("rocblas_status_memory_error"),
    RuntimeError("cudaErrorMemoryAllocation: out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 10.00 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 134217728 bytes."),
    RuntimeError("std::bad_alloc"),
    RuntimeError("could not create a primitive"),
    RuntimeError("CUDA driver error: device not ready"),
    SafetensorError("Error while deserializing header: Cannot allocate memory (os error 12)"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    MemoryError(),
]
OTHERS = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: no kernel image is available for execution on the device"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSetStream(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"),
    RuntimeError("could not create a primitive descriptor for a matmul primitive"),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "/photos/out of memory/1.png"),
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("memory"),
]


@pytest.mark.parametrize("error", SAID, ids=str)
def test_memory_that_ran_out(error):
    assert (out_of_memory_words(error) or "").startswith("memory ran out: ")


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_what_only_sounds_like_it(error):
    assert out_of_memory_words(error) is None
