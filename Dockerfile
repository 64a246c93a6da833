# Two targets: `gateway` (small, without vLLM) and `managed` (starts vLLM itself).
#
#   docker build --target gateway -t attest-gateway:0.1.0 .
#   docker build --target managed -t attest-gateway:0.1.0-managed \
#     --build-arg VLLM_IMAGE=vllm/vllm-openai:v0.32.0@sha256:… .
#
# A tag can be moved, a digest can't. To refresh the one below, ask the registry and
# put the answer behind the tag:
#
#   docker buildx imagetools inspect python:3.11-slim-bookworm --format '{{.Manifest.Digest}}'
#
# 3.11, since that is the version that the tests run on.
ARG PYTHON_IMAGE=python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
# Without a digest on purpose: we have checked none. The target `managed` ends with an
# error until you name yours.
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0

# Every step is in exec form: what runs is what stands here, with no shell in between.
FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY image/requirements.txt image/
RUN ["python", "-m", "venv", "--without-pip", "/opt/attest"]
# Dependencies come from the lock alone, each file checked by its digest.
RUN ["python", "-m", "pip", "--python", "/opt/attest/bin/python", "install", "--require-hashes", "--no-deps", "--only-binary=:all:", "--requirement=image/requirements.txt"]
COPY pyproject.toml README.md ./
COPY attest/ attest/
COPY gateway/ gateway/
RUN ["python", "-m", "pip", "wheel", "--no-deps", "--wheel-dir=/wheels", "."]
RUN ["python", "-m", "pip", "--python", "/opt/attest/bin/python", "install", "--no-deps", "--no-index", "--find-links=/wheels", "attest-gateway"]
RUN ["python", "-m", "pip", "--python", "/opt/attest/bin/python", "check"]

FROM ${PYTHON_IMAGE} AS gateway
LABEL org.opencontainers.image.title="attest-gateway" \
      org.opencontainers.image.description="Proof of which governed model produced an answer." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/attest /opt/attest
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A number, so that the kubelet can see that it is not root. It owns nothing here: the
# root file system may be read-only, and state needs a volume.
USER 65532:65532
WORKDIR /var/lib/attest
EXPOSE 8000
ENTRYPOINT ["/opt/attest/bin/attest-gateway"]
CMD ["serve"]

FROM ${VLLM_IMAGE} AS managed
ARG VLLM_IMAGE
USER 0:0
RUN ["python3", "-c", "import os, sys; image = os.environ['VLLM_IMAGE']; sys.exit(0 if '@sha256:' in image else 'VLLM_IMAGE=' + image + ' has no digest; give one: --build-arg VLLM_IMAGE=NAME:TAG@sha256:…')"]
LABEL org.opencontainers.image.title="attest-gateway-managed" \
      org.opencontainers.image.description="attest-gateway together with the vLLM that it starts." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /src/image/requirements.txt /opt/attest-install/
COPY --from=build /wheels /opt/attest-install/
# An environment of its own: vLLM pins versions of libraries that the gateway uses too.
RUN ["python3", "-m", "venv", "--without-pip", "/opt/attest"]
RUN ["python3", "-m", "pip", "--python", "/opt/attest/bin/python", "install", "--no-cache-dir", "--require-hashes", "--no-deps", "--only-binary=:all:", "--requirement=/opt/attest-install/requirements.txt"]
RUN ["python3", "-m", "pip", "--python", "/opt/attest/bin/python", "install", "--no-cache-dir", "--no-deps", "--no-index", "--find-links=/opt/attest-install", "attest-gateway"]
RUN ["python3", "-m", "pip", "--python", "/opt/attest/bin/python", "check"]
# vLLM's own environment gets the plug-in and no dependency. The engine is started with
# `python -I`, which reads no PYTHONPATH, so that it has to be installed.
RUN ["python3", "-m", "pip", "install", "--no-cache-dir", "--no-deps", "--no-index", "--find-links=/opt/attest-install", "attest-gateway"]
ENV ATTEST_ENGINE__PYTHON=python3 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /var/lib/attest
EXPOSE 8000
ENTRYPOINT ["/opt/attest/bin/attest-gateway"]
CMD ["serve"]
