# Two stages: wheels are built where a compiler may be, the image holds none.
#
# Pin the base by digest for a build that can be repeated:
#   docker build --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:... .
#
# Licences: Trunkline is MIT. The offline engine's speech comes from espeak-ng (by way of
# espeakng-loader), which is GPL-3.0-or-later and loaded in a process of its own only. Passing the image
# on passes that on too. Build with --build-arg EXTRAS= for an image without the engine.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
ARG EXTRAS=[offline,postgres,redis]
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/trunkline
WORKDIR /src
# The versions that were tested, each file checked by its hash (`make lock` resolves them anew). All are
# fetched; what EXTRAS names is installed.
COPY deploy/requirements.lock ./
RUN /opt/trunkline/bin/pip download --quiet --only-binary :all: --require-hashes -r requirements.lock -d /wheels
COPY pyproject.toml hatch_build.py trunkline_command.py README.md LICENSE ./
COPY app app
COPY audio audio
COPY trunkline trunkline
# Left out, for a small image: pip, tests, and what nothing here imports or reads: places and carriers of
# phone numbers, Twilio's other products, its client for asyncio with all that this one needs, and a
# language model (the recognizer has grammars). `make image-check` imports everything in the image.
ARG LEFT_OUT="phonenumbers/geodata phonenumbers/carrierdata sqlalchemy/testing numpy/f2py \
    pocketsphinx/model/en-us/en-us.lm.bin"
ARG UNUSED="aiohttp aiohttp-retry aiohappyeyeballs aiosignal frozenlist multidict propcache yarl"
RUN /opt/trunkline/bin/pip install --no-compile --no-index --find-links /wheels ".${EXTRAS}" \
    && /opt/trunkline/bin/pip uninstall --quiet --yes ${UNUSED} pip \
    && cd /opt/trunkline/lib/python*/site-packages \
    && rm -rf ${LEFT_OUT} \
    && find twilio/rest -mindepth 1 -maxdepth 1 -type d ! -name api -exec rm -r {} + \
    && find . -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -r {} + \
    && /opt/trunkline/bin/python -m compileall -q .

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Trunkline" \
      org.opencontainers.image.description="A telephony voice-agent server" \
      org.opencontainers.image.licenses="MIT AND GPL-3.0-or-later"
# A user without a name: nothing in the image belongs to it except the place for what is written.
RUN install -d -o 65532 -g 65532 /data /srv/trunkline
COPY --from=build /opt/trunkline /opt/trunkline
COPY config.yaml /srv/trunkline/config.yaml
ENV PATH=/opt/trunkline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SERVER_HOST=0.0.0.0 \
    STATE_DIR=/data
WORKDIR /srv/trunkline
USER 65532:65532
VOLUME /data
EXPOSE 8080
# SIGTERM lets live calls finish: give the container limits.drain_timeout_s and a little more.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('SERVER_PORT', '8080') + '/healthz', timeout=4).read()"]
ENTRYPOINT ["trunkline"]
CMD ["serve"]
