# The offline job: torch, transformers, training and export. For the GPU, with PyPI's wheels: --build-arg TORCH=gpu
# Every file that pip takes is known by its hash (`make locks`), the base by its digest (`make digests`).
# Where PyTorch's index cannot be reached, a folder with the wheel of docker/locks/torch-cpu.txt does:
# --build-context wheels=FOLDER
ARG PYTHON=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3

FROM scratch AS wheels

FROM ${PYTHON} AS build
ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/isrf && python -m venv /opt/build
WORKDIR /src
COPY docker/locks docker/locks
RUN --mount=type=bind,from=wheels,target=/wheels \
    /opt/isrf/bin/pip install --quiet --require-hashes --no-deps --only-binary :all: --find-links /wheels \
      --requirement "docker/locks/torch-${TORCH}.txt" \
 && /opt/isrf/bin/pip install --quiet --require-hashes --no-deps --only-binary :all: \
      --requirement docker/locks/offline.txt \
 && /opt/build/bin/pip install --quiet --require-hashes --no-deps --requirement docker/locks/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY isrf isrf
COPY offline offline
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/isrf/bin/pip install --quiet --no-deps --no-index dist/*.whl

FROM ${PYTHON}
RUN groupadd --gid 10001 isrf \
 && useradd --uid 10001 --gid isrf --home-dir /var/lib/isrf --create-home --shell /usr/sbin/nologin isrf \
 && install -d -o isrf -g isrf /var/lib/isrf/releases /var/lib/isrf/demo
COPY --from=build /opt/isrf /opt/isrf
ENV PATH=/opt/isrf/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/isrf
ENTRYPOINT ["python", "-m", "offline"]
