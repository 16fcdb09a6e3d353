# syntax=docker/dockerfile:1.10
# The service (API, reconciler, dashboard), and the head of the Ray cluster. No torch: recipes run on the workers.
# From the root of the checkout: docker build -f deploy/images/service.Dockerfile -t emascale-service .
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY api_schemas api_schemas
COPY deploy/images/install deploy/images/install
RUN --mount=type=cache,target=/var/cache/pip \
    PIP_CACHE_DIR=/var/cache/pip deploy/images/install service /opt/venv

FROM python:${PYTHON}
RUN useradd --uid 10001 --create-home emascale && install --directory --owner=emascale /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY service service
COPY deploy/roles deploy/roles
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    EMASCALE_DATA_FOLDER=/data \
    EMASCALE_READ_RECIPES=false
USER 10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=6 CMD ["deploy/roles/healthy", "service"]
CMD ["deploy/roles/service"]
