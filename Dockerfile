# syntax=docker/dockerfile:1

FROM python:3.13-slim AS build
WORKDIR /build
COPY pyproject.toml setup.py README.md LICENSE ./
COPY server/ server/
COPY persistence/ persistence/
COPY web/__init__.py web/pages.py web/py.typed web/
COPY web/static/ web/static/
# Plait's hot path is made into C (see setup.py), which takes a compiler here and none later.
# Plait runs from a virtual environment without pip in it. pip compiles what it installs, so that nothing has to be
# written at the start: the file system may be read-only.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && COMPILE_PLAIT=1 pip wheel --no-cache-dir --no-deps --wheel-dir wheels . \
    && python -m venv --without-pip /opt/plait \
    && pip --python /opt/plait/bin/python install --no-cache-dir --only-binary :all: wheels/*.whl


FROM python:3.13-slim
LABEL org.opencontainers.image.title="Plait" \
      org.opencontainers.image.description="A collaboration server for Yjs documents" \
      org.opencontainers.image.licenses="MIT"
RUN groupadd --gid 10001 plait \
    && useradd --uid 10001 --gid plait --no-create-home --home-dir /data --shell /usr/sbin/nologin plait \
    && install --directory --owner plait --group plait --mode 0750 /data
COPY --from=build /opt/plait /opt/plait
ENV PATH=/opt/plait/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PLAIT_HOST=0.0.0.0 \
    PLAIT_STORE=sqlite:////data/plait.db
# By number: Kubernetes can tell only from a number that it is not root.
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# Over plain HTTP on the port that PLAIT_PORT names. With tls_cert, or a port from a file, give a check of your own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["plait", "health"]
# It listens beyond this container, so it refuses to start until it is told who may come in: give it PLAIT_TOKEN_SECRET,
# which `plait token secret` makes, or see docs/auth.md. It belongs into no image.
ENTRYPOINT ["plait", "serve"]
