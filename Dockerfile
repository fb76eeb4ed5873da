# Two images. `operator` holds no torch; `trainer` adds the trainer library to an image that has
# torch, and uses that image's torch and numpy as they are.
#
#   docker build --target operator -t operator .
#   docker build --target trainer -t trainer --build-arg TRAINER_BASE_IMAGE=<an image with torch> .
#
# Packages go into a directory of their own (/opt/spot, on PYTHONPATH) instead of the base image's
# site-packages: that works alike where Debian manages Python and where pip does.
ARG PYTHON_BASE_IMAGE=docker.io/library/python:3.13-slim
ARG TRAINER_BASE_IMAGE=docker.io/pytorch/pytorch:2.9.1-cuda12.8-cudnn9-runtime

FROM ${PYTHON_BASE_IMAGE} AS operator-packages
COPY requirements/operator.lock /build/
RUN python3 -m pip install --disable-pip-version-check --root-user-action=ignore --no-cache-dir --no-compile \
        --only-binary :all: --require-hashes --target /opt/spot -r /build/operator.lock \
    && rm -rf /opt/spot/bin
COPY operator/spot_operator /opt/spot/spot_operator
# All that the operator knows of the trainer is its contract.
COPY trainer/spot_trainer/__init__.py trainer/spot_trainer/contract.py /opt/spot/spot_trainer/
# Compiled here, since the root file system is read-only where it runs; by hash, so that the
# same sources give the same bytes.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /opt/spot

FROM ${PYTHON_BASE_IMAGE} AS operator
LABEL org.opencontainers.image.title="spot-training-operator" \
      org.opencontainers.image.description="Runs training jobs on spot nodes so that they finish on time" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=operator-packages /opt/spot /opt/spot
# LOGNAME: kopf asks for the name of its user, and a bare number, whichever it is, has none.
ENV PYTHONPATH=/opt/spot PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp LOGNAME=operator
USER 65532:65532
EXPOSE 8080 8443
ENTRYPOINT ["python3", "-m", "spot_operator"]

FROM ${TRAINER_BASE_IMAGE} AS trainer-packages
COPY requirements/trainer.lock /build/
# numpy must be the one that the base image's torch was built for, so it is left out of the lock.
RUN awk '/^[^ #]/ { skip = /^numpy==/ } !skip' /build/trainer.lock > /build/without-numpy.lock \
    && python3 -m pip install --disable-pip-version-check --root-user-action=ignore --no-cache-dir --no-compile \
        --only-binary :all: --require-hashes --no-deps --target /opt/spot -r /build/without-numpy.lock \
    && rm -rf /opt/spot/bin
COPY trainer/spot_trainer /opt/spot/spot_trainer
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /opt/spot

FROM ${TRAINER_BASE_IMAGE} AS trainer
LABEL org.opencontainers.image.title="spot-trainer" \
      org.opencontainers.image.description="PyTorch with the spot trainer library" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=trainer-packages /opt/spot /opt/spot
# LOGNAME: torch asks for the name of its user as well.
ENV PYTHONPATH=/opt/spot PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp LOGNAME=trainer
WORKDIR /app
USER 1000:1000
CMD ["python3"]
