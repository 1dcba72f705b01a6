# The service: no torch, no compiler. For the GPU: --build-arg REQUIREMENTS=docker/locks/service-gpu.txt
# Every file that pip takes is known by its hash (`make locks`), the base by its digest (`make digests`).
# A test replays its steps and starts it as an unprivileged user on a read-only tree.
ARG PYTHON=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3

FROM ${PYTHON} AS build
ARG REQUIREMENTS=docker/locks/service-cpu.txt
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/isrf && python -m venv /opt/build
WORKDIR /src
COPY docker/locks docker/locks
RUN /opt/isrf/bin/pip install --quiet --require-hashes --no-deps --only-binary :all: --requirement "${REQUIREMENTS}" \
 && /opt/build/bin/pip install --quiet --require-hashes --no-deps --requirement docker/locks/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY isrf isrf
COPY service service
COPY clients/javascript clients/javascript
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/isrf/bin/pip install --quiet --no-deps --no-index dist/*.whl

FROM ${PYTHON}
RUN groupadd --gid 10001 isrf \
 && useradd --uid 10001 --gid isrf --home-dir /var/lib/isrf --create-home --shell /usr/sbin/nologin isrf \
 && install -d -o isrf -g isrf /var/lib/isrf/releases /var/lib/isrf/keys \
    /var/lib/isrf/secrets /var/lib/isrf/state
COPY --from=build /opt/isrf /opt/isrf
# The linter takes the path of a file of hashes for a secret.
# hadolint ignore=DL3064
ENV PATH=/opt/isrf/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ISRF_BIND_HOST=0.0.0.0 \
    ISRF_RELEASES_DIR=/var/lib/isrf/releases \
    ISRF_STATE_DIR=/var/lib/isrf/state \
    ISRF_API_KEYS_FILE=/var/lib/isrf/keys/keys.json
USER 10001:10001
WORKDIR /var/lib/isrf
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["python", "-m", "service"]
