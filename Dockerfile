# Run `up --foreground` as on a host, with the packages of requirements.lock, as an ordinary user. The root can be
# mounted read-only: the service writes to /opt/sentinel/var only, and reads its input from data/incoming.
FROM python:3.12.12-slim-bookworm AS packages
WORKDIR /opt/sentinel
# Only these files decide which packages are installed, so a change of the code does not rebuild this layer of 3 GB.
COPY sentinel.py pyproject.toml requirements.lock ./
ENV PIP_NO_CACHE_DIR=1
RUN python -c "import sentinel; sentinel.set_up(['postgres'])"

FROM python:3.12.12-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin sentinel
WORKDIR /opt/sentinel
COPY --from=packages /opt/sentinel/.venv .venv
COPY . .
RUN install -d -o sentinel -g sentinel var data/incoming
# Libraries write caches to the home folder, which this user does not have.
ENV HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib NUMBA_CACHE_DIR=/tmp/numba KERAS_HOME=/tmp/keras \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER sentinel
VOLUME ["/opt/sentinel/var"]
STOPSIGNAL SIGTERM
# Exit status 0 is ok, and 1 a warning that a restart would not clear.
HEALTHCHECK --interval=60s --timeout=30s --start-period=120s --retries=3 \
    CMD ./sentinel.py status > /dev/null; [ $? -le 1 ]
ENTRYPOINT ["./sentinel.py"]
CMD ["up", "--foreground"]
