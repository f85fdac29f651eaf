# docker build -t footfall .
# docker run --rm --read-only --cap-drop ALL -p 127.0.0.1:8000:8000 footfall
#
# The image has the binary, the C library, the certificates of the public authorities for TLS to a Kafka cluster, and
# nothing else: no shell, no package manager. It needs no file that it could write. A Rocket.toml that is mounted in
# /etc/footfall is read.

FROM rust:1-bookworm AS build
# librdkafka, OpenSSL and zlib are built from source. Any version of these tools will do.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates cmake g++ make perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# What `footfall --version` says, because the repository is not copied: --build-arg COMMIT=$(git rev-parse --short HEAD)
ARG COMMIT
RUN FOOTFALL_COMMIT=$COMMIT cargo build --release --locked --bin footfall \
    && packaging/image target/release/footfall /image

FROM scratch
COPY --from=build /image /
# By number, so that Kubernetes can see that it is not root. /etc/passwd calls it footfall.
USER 65532:65532
WORKDIR /etc/footfall
ENV ROCKET_ADDRESS=0.0.0.0
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/usr/bin/footfall", "healthcheck"]
ENTRYPOINT ["/usr/bin/footfall"]
