# The same `up --foreground` as on a host, with the packages of requirements.lock, as an ordinary user on a root that can
# be mounted read-only: what the service writes goes to /opt/sentinel/var, what it only reads comes in data/incoming.
FROM python:3.12.12-slim-bookworm AS packages
WORKDIR /opt/sentinel
# Only what decides which packages are installed: a change of the code keeps this layer, and the 3 GB in it.
COPY sentinel.py pyproject.toml requirements.lock ./
ENV PIP_NO_CACHE_DIR=1
RUN python -c "import sentinel; sentinel.set_up(['postgres'])"

FROM python:3.12.12-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin sentinel
WORKDIR /opt/sentinel
COPY --from=packages /opt/sentinel/.venv .venv
COPY . .
RUN install -d -o sentinel -g sentinel var data/incoming
# Libraries keep small caches beside the user's files; there is no home here.
ENV HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib NUMBA_CACHE_DIR=/tmp/numba KERAS_HOME=/tmp/keras \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER sentinel
VOLUME ["/opt/sentinel/var"]
STOPSIGNAL SIGTERM
# 0 is well and 1 a warning, which a restart would not mend.
HEALTHCHECK --interval=60s --timeout=30s --start-period=120s --retries=3 \
    CMD ./sentinel.py status > /dev/null; [ $? -le 1 ]
ENTRYPOINT ["./sentinel.py"]
CMD ["up", "--foreground"]
