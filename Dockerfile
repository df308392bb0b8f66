# docker build --tag prod9 .                              CPU
# docker build --tag prod9:cuda --build-arg DEVICE=cuda .
FROM python:3.12-slim-bookworm

ARG DEVICE=cpu
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

WORKDIR /opt/prod9
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY tools/install_image.sh tools/
COPY src src
RUN tools/install_image.sh "$DEVICE"

# Not root. `docker run --user` takes any number: home, name and caches are there for each.
ENV HOME=/tmp \
    USER=prod9 \
    XDG_CACHE_HOME=/tmp/cache
USER 1000
WORKDIR /work
ENTRYPOINT ["prod9"]
CMD ["--help"]
