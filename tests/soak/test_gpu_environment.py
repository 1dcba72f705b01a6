"""The GPU image's environment, installed from its lock: ONNX Runtime and FAISS open beside each other, without a GPU.

It downloads it from the package index and takes 4.1 GB of disk while it runs. Run by `make soak`.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DISK_GB = 10
PROBE = """
import json
import faiss
import numpy as np
import onnxruntime

onnxruntime.preload_dlls(directory="")
rows = np.eye(4, dtype=np.float32)
index = faiss.IndexFlatIP(4)
index.add(rows)
print(json.dumps({
    "options": faiss.get_compile_options(),
    "nearest": index.search(rows, 1)[1][:, 0].tolist(),
    "classes": [name for name in ("StandardGpuResources", "GpuIndexFlatIP", "index_cpu_to_gpu", "GpuIndexCagra")
                if hasattr(faiss, name)],
    "gpus": faiss.get_num_gpus(),
    "providers": onnxruntime.get_available_providers(),
}))
"""


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_faiss_and_onnx_runtime_for_one_cuda_share_an_environment(tmp_path: Path) -> None:
    free_gb = shutil.disk_usage(tmp_path).free / 1e9
    if free_gb < DISK_GB:
        pytest.skip(f"needs {DISK_GB} GB of disk, {free_gb:.0f} GB are free")
    try:
        subprocess.run([sys.executable, "-m", "venv", tmp_path / "gpu"], check=True)
        lock = str(ROOT / "docker/locks/service-gpu.txt")
        install = ["install", "--quiet", "--no-cache-dir", "--require-hashes", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([tmp_path / "gpu/bin/pip", *install, "--requirement", lock], check=True)
        python = str(tmp_path / "gpu/bin/python")
        ended = subprocess.run([python, "-c", PROBE], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        found = json.loads(ended.stdout.splitlines()[-1])
        assert {"GPU", "NVIDIA_CUVS"} <= set(found["options"].split())
        assert found["nearest"] == [0, 1, 2, 3], "what it does on the CPU, it still does"
        assert len(found["classes"]) == 4
        assert "CUDAExecutionProvider" in found["providers"]
        cuda = subprocess.run(
            [tmp_path / "gpu/bin/pip", "list", "--format=json"], capture_output=True, text=True, check=True
        )
        versions = {one["name"]: one["version"] for one in json.loads(cuda.stdout)}
        assert versions["nvidia-cuda-runtime"].split(".")[0] == "13"
        assert not {"faiss-cpu", "onnxruntime"} & set(versions)
    finally:
        shutil.rmtree(tmp_path / "gpu", ignore_errors=True)
