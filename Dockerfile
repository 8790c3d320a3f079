# Two images: `serving`, the default, runs `up --foreground` as on a host; `training` adds TensorFlow for `train`. The root can
# be mounted read-only: the service writes to /opt/sentinel/var and /tmp only, and reads its input from data/incoming.
# The digest decides, and the tag is for people: `docker buildx imagetools inspect TAG` prints the digest of a tag. Another base,
# from a registry of your site for instance, is named by `--build-arg SENTINEL_BASE=`, or by that variable for compose.
ARG SENTINEL_BASE=python:3.12.12-slim-bookworm@sha256:593bd06efe90efa80dc4eee3948be7c0fde4134606dd40d8dd8dbcade98e669c
FROM ${SENTINEL_BASE} AS base
# The user has a number, so that a cluster can check that it is not root.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin sentinel \
    && install -d -o 10001 -g 10001 /opt/sentinel/var /opt/sentinel/data/incoming \
    && install -d -m 1777 /opt/sentinel/demo
WORKDIR /opt/sentinel
# The packages are part of the image: sentinel.py installs none. Compiled kernels are kept with the state, so that a
# container starts as fast as the one before it; other caches would go to a home folder, which this user does not have.
ENV SENTINEL_NO_SETUP=1 PATH=/opt/sentinel/.venv/bin:$PATH HOME=/tmp NUMBA_CACHE_DIR=/opt/sentinel/var/cache/numba \
    MPLCONFIGDIR=/opt/sentinel/var/cache/matplotlib KERAS_HOME=/tmp/keras PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
VOLUME ["/opt/sentinel/var"]
STOPSIGNAL SIGTERM
# Exit status 0 is ok, and 1 a warning that a restart would not clear.
HEALTHCHECK --interval=60s --timeout=30s --start-period=120s --retries=3 \
    CMD ./sentinel.py status > /dev/null; [ $? -le 1 ]
ENTRYPOINT ["./sentinel.py"]
CMD ["up", "--foreground"]

# Only the lock decides which packages are installed, so a change of the code rebuilds the last layer, in seconds.
FROM base AS packages
USER root
COPY requirements/service.txt requirements/postgres.txt requirements/
# The secret is a pip.conf with the index of your site. Large tests of packages are removed, and the rest is compiled.
# The .pth lets `dask worker` import the code, as in the environment that sentinel.py makes.
RUN --mount=type=secret,id=pip_conf \
    python -m venv .venv \
    && PIP_CONFIG_FILE=/run/secrets/pip_conf .venv/bin/pip install --no-cache-dir --no-deps --require-hashes --no-compile \
        --disable-pip-version-check --progress-bar=off -r requirements/service.txt -r requirements/postgres.txt \
    && (cd .venv/lib/python3.*/site-packages && rm -r $(find dask numba numpy scipy -name tests) && echo /opt/sentinel > sentinel.pth) \
    && (.venv/bin/python -m compileall -q -j 0 .venv/lib || echo "some files are for other Pythons")

FROM packages AS training-packages
COPY requirements/train.txt requirements/
RUN --mount=type=secret,id=pip_conf \
    PIP_CONFIG_FILE=/run/secrets/pip_conf .venv/bin/pip install --no-cache-dir --no-deps --require-hashes --no-compile \
        --disable-pip-version-check --progress-bar=off -r requirements/train.txt

# Files of a checkout made with a strict umask must be readable for the user of the image.
FROM base AS code
USER root
WORKDIR /code
COPY . .
RUN chmod -R u=rwX,go=rX . && python -m compileall -q aetherscan sentinel

FROM base AS training
COPY --from=training-packages /opt/sentinel/.venv .venv
COPY --from=code /code ./
HEALTHCHECK NONE
CMD ["train", "--help"]

FROM base AS serving
COPY --from=packages /opt/sentinel/.venv .venv
COPY --from=code /code ./
