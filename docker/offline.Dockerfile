# The offline job: torch, transformers, training and export.
# For the GPU: --build-arg TORCH_INDEX=https://pypi.org/simple (torch's wheels there bring CUDA).
ARG PYTHON=python:3.11.11-slim-bookworm

FROM ${PYTHON} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/isrf
WORKDIR /src
COPY constraints.txt ./
RUN /opt/isrf/bin/pip install --quiet --index-url "${TORCH_INDEX}" torch==2.13.0
COPY pyproject.toml README.md LICENSE ./
COPY isrf isrf
COPY offline offline
RUN /opt/isrf/bin/pip install --quiet --constraint constraints.txt '.[offline]'

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
