# syntax=docker/dockerfile:1.10
# A node that trains: Ray, torch and the recipes. From the root of the checkout:
#   docker build -f deploy/images/worker.Dockerfile -t emascale-worker:cuda .
#   docker build -f deploy/images/worker.Dockerfile -t emascale-worker:cpu \
#     --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
# PyPI's torch brings CUDA along, and the host its driver (NVIDIA's container toolkit); that of TORCH_INDEX goes first.
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
ARG TORCH_INDEX=
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY api_schemas api_schemas
COPY deploy/images/install deploy/images/install
RUN --mount=type=cache,target=/var/cache/pip \
    PIP_CACHE_DIR=/var/cache/pip PIP_EXTRA_INDEX_URL="${TORCH_INDEX}" deploy/images/install workers /opt/venv

FROM python:${PYTHON}
# The data set of some examples. Debian keeps one version of it: there is nothing to pin.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends dataset-fashion-mnist && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home emascale
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY workers workers
COPY deploy/roles deploy/roles
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1
USER 10001
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=6 CMD ["deploy/roles/healthy", "worker"]
CMD ["deploy/roles/worker"]
