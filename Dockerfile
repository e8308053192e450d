# An image with orbit4d and all that it needs, for the nodes of a Ray cluster: spot workers start in about a minute,
# since nothing is installed on them.
#
#   make wheel
#   docker build -t your-registry/orbit4d .                                 EXTRAS=gcs for Google Cloud
#   docker push your-registry/orbit4d
#
# Then name it as `image` in ray_cluster.yaml and leave only `orbit4d doctor` in its setup_commands. GPU workers: build
# with --build-arg RAY_IMAGE=rayproject/ray:2.60.0-py311-gpu.
ARG RAY_IMAGE=rayproject/ray:2.60.0-py311
FROM ${RAY_IMAGE}

ARG EXTRAS=s3
RUN sudo apt-get update -qq \
    && sudo apt-get install -y -qq --no-install-recommends \
        libx11-6 libxrender1 libxfixes3 libxi6 libxkbcommon0 libsm6 libice6 libgl1 libgomp1 libatomic1 \
    && sudo rm -rf /var/lib/apt/lists/*

COPY --chown=ray constraints.txt /home/ray/constraints.txt
COPY --chown=ray dist/*.whl /home/ray/wheels/
RUN pip install --no-cache-dir -q -c /home/ray/constraints.txt \
        --extra-index-url https://download.pytorch.org/whl/cpu \
        "$(ls -t /home/ray/wheels/orbit4d-*.whl | head -1)[${EXTRAS}]"

# Fails the build, and not a node, where something is missing.
RUN orbit4d doctor
